"""The six objects of the benchmark, and one more, keyed by name (SPEC section 1)."""

from dataclasses import dataclass

from errors import UserError


@dataclass(frozen=True)
class ObjectInfo:
    """What the program knows of an object. Histogram are those published with the benchmark."""

    name: str
    noun: str  # in the sentences
    masks: bool  # whether abnormal images have anomaly masks
    test_images: int
    valid_images: int
    benchmark: bool = True  # whether zero-shot models of other objects are trained on it


CATALOG = {
    info.name: info
    for info in (
        ObjectInfo("Brain", "Brain", True, 3_715, 83),
        ObjectInfo("Liver", "Liver", True, 1_493, 166),
        ObjectInfo("Retina_RESC", "retinal OCT", True, 1_805, 115),
        ObjectInfo("Retina_OCT2017", "retinal OCT", False, 968, 32),
        ObjectInfo("Chest", "Chest X-ray film", False, 17_194, 1_490),
        ObjectInfo("Histopathology", "histopathological image", False, 1_997, 236),
        ObjectInfo(
            "Skin", "skin", False, 0, 0, benchmark=False
        ),  # a modality that the paper does not have; no fixed set
        # the reproducibility study's names, which it also puts into the sentences
        ObjectInfo("Skin_HAM10000", "Skin_HAM10000", False, 0, 0, benchmark=False),
        ObjectInfo("Skin_ISIC2019", "Skin_ISIC2019", False, 0, 0, benchmark=False),
    )
}
BENCHMARK = tuple(info for info in CATALOG.values() if info.benchmark)


ALIASES = {"HAM10000": "Skin_HAM10000", "ISIC2019": "Skin_ISIC2019"}


def known_name(name: str) -> str:
    """Return the catalog's name of an object that is also known by a shorter one; other names as they are."""
    return ALIASES.get(name, name)


def object_info(name: str) -> ObjectInfo:
    """The entry of an object. Raises UserError for a name that is not in the catalog: no object lends its noun."""
    if name not in CATALOG:
        raise UserError(f"unknown object {name!r}; known: {', '.join(CATALOG)}")
    return CATALOG[name]

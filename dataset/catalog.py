"""The six objects of the benchmark and three more, by name (SPEC section 1). Needs no torch."""

from dataclasses import dataclass

from errors import UserError

# columns of the paper's tables
PAPER_ORDER = ("Histopathology", "Chest", "Retina_OCT2017", "Brain", "Liver", "Retina_RESC")


@dataclass(frozen=True)
class ObjectInfo:
    """One object: a kind of images with a folder `<data>/<name>_AD`.

    Args:
        name: key in CATALOG and value of `--obj`.
        noun: stands for the object in the sentences.
        masks: whether its abnormal images have anomaly masks.
        test_images: number of test images published with the benchmark; 0: no fixed set.
        valid_images: number of images of `valid` published with the benchmark.
        benchmark: whether it is one of the benchmark's six, which zero-shot models train on.

    """

    name: str
    noun: str
    masks: bool
    test_images: int = 0
    valid_images: int = 0
    benchmark: bool = False


CATALOG = {
    info.name: info
    for info in (
        ObjectInfo("Brain", "Brain", True, 3_715, 83, benchmark=True),
        ObjectInfo("Liver", "Liver", True, 1_493, 166, benchmark=True),
        ObjectInfo("Retina_RESC", "retinal OCT", True, 1_805, 115, benchmark=True),
        ObjectInfo("Retina_OCT2017", "retinal OCT", False, 968, 32, benchmark=True),
        ObjectInfo("Chest", "Chest X-ray film", False, 17_194, 1_490, benchmark=True),
        ObjectInfo("Histopathology", "histopathological image", False, 1_997, 236, benchmark=True),
        # a modality that the paper does not have
        ObjectInfo("Skin", "skin", masks=False),
        # the reproducibility study's names, which it also puts into the sentences
        ObjectInfo("Skin_HAM10000", "Skin_HAM10000", masks=False),
        ObjectInfo("Skin_ISIC2019", "Skin_ISIC2019", masks=False),
    )
}
BENCHMARK = tuple(info for info in CATALOG.values() if info.benchmark)
ALIASES = {"HAM10000": "Skin_HAM10000", "ISIC2019": "Skin_ISIC2019"}


def known_name(name: str) -> str:
    """Return the catalog's name of an alias; other names unchanged."""
    return ALIASES.get(name, name)


def object_info(name: str) -> ObjectInfo:
    """Return the entry of an object. Raises UserError for a name that is not in the catalog."""
    if name not in CATALOG:
        raise UserError(f"unknown object {name!r}; known: {', '.join(CATALOG)}")
    return CATALOG[name]

"""Findings of `check` about what images and masks hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path

from dataset.catalog import ANY, HALF
from dataset.layout import ABNORMAL, LABELS, is_dicom_name
from dataset.masks import FOREGROUND, same_shape
from preparation.audit_files import SIDE, ImageFacts, MaskFacts
from preparation.audit_findings import ERROR, NOTE, WARNING, Contents, Finding, found, plural
from preparation.audit_rules import PUBLISHED

MAJORITY = 0.5  # a size or mode is the usual one if more than this share of the images has it
GREYS_SHOWN = 8
BRAIN = "Brain"
BRAIN_GREYS = {58.0, 122.0, 255.0}  # of the benchmark's masks: tumour labels 1, 2 and 4


def name_size(size: tuple[int, int]) -> str:
    """Return a size as text."""
    return f"{size[0]} x {size[1]}"


def plain(value: float) -> str:
    """Return a number as short text."""
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"


def image_findings(contents: Contents) -> Iterator[Finding]:
    """Yield images that cannot be read, and those that are unlike the others."""
    pages = [path for path, facts in contents.images.items() if facts.pages]
    text = "of several images (pages, frames); save each as a file of its own"
    yield from found(ERROR, "pages", "file", text, pages)
    yield from unreadable_findings(contents)
    images = contents.readable()
    yield from size_findings(contents, images)
    modes = {path: facts.mode for path, facts in images.items()}
    yield from unusual("mode", modes)
    yield from wide_findings(contents, images)
    flat = [path for path, facts in images.items() if facts.low == facts.high]
    yield from found(WARNING, "constant", "image", "of one value, with nothing to see", flat)
    yield from telling_findings(images)


def unreadable_findings(contents: Contents) -> Iterator[Finding]:
    """Yield images and masks that cannot be read, with the first reason."""
    images = {p: f.problem for p, f in contents.images.items() if f.problem and not f.pages}
    masks = {p: f.problem for p, f in contents.masks.items() if f.problem and ABNORMAL in p}
    for noun, kind, bad in (("image", "unreadable", images), ("mask", "mask_unreadable", masks)):
        text = f"that cannot be read, the first {next(iter(bad.values()), '')}; replace or remove"
        yield from found(ERROR, kind, noun, text, bad)


def size_findings(contents: Contents, images: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    """Yield images of an unusual size: not the published one, or not that of the majority."""
    sizes = {path: facts.size for path, facts in images.items()}
    published = PUBLISHED.get(contents.info.name)
    if published is None:
        yield from unusual("size", {path: name_size(size) for path, size in sizes.items()})
        return
    known = (published.size, published.size[::-1])  # it was published without an orientation
    odd = {path: size for path, size in sizes.items() if size not in known}
    text = f"of another size than the published {name_size(published.size)}: {tally(odd)}"
    yield from found(WARNING, "size", "image", text, odd)


def tally(values: Mapping[str, tuple[int, int]]) -> str:
    """Return the most frequent sizes with their counts."""
    counts = Counter(values.values()).most_common()
    shown = ", ".join(f"{count:,} of {name_size(size)}" for size, count in counts[:3])
    return shown + ", ..." * (len(counts) > 3)


def unusual(kind: str, values: Mapping[str, str]) -> Iterator[Finding]:
    """Yield images whose property (size, mode), as text, is not that of the majority.

    Without a majority it is a note that they vary.
    """
    counts = Counter(values.values())
    if len(counts) < 2:
        return
    usual, most = counts.most_common(1)[0]
    if most <= MAJORITY * len(values):
        text = f"{kind}s of images vary: there are {len(counts)}, {most:,} images have {usual}"
        yield Finding(NOTE, kind, text)
        return
    odd = [path for path, value in values.items() if value != usual]
    text = f"of another {kind} than the {usual} of the other {most:,}"
    yield from found(WARNING, kind, "image", text, odd)


def wide_findings(contents: Contents, images: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    """Yield images of more than 8 bit, and how they would be read."""
    wide = {path: facts for path, facts in images.items() if facts.wide}
    if not wide:
        return
    low = plain(min(facts.low for facts in wide.values()))
    high = plain(max(facts.high for facts in wide.values()))
    rule = contents.info.intensity
    how = rule.words(any(is_dicom_name(Path(path)) for path in wide))
    text = f"of more than 8 bit, values {low} to {high}, scaled to 8 bit {how} "
    text += f"(--intensity {rule})"
    yield from found(NOTE, "wide", "image", text, wide)
    if len(wide) < len(images):
        text = f"{plural(len(wide), 'image')} of more than 8 bit, which --intensity scales, "
        text += f"and {len(images) - len(wide):,} of 8 bit, which it does not"
        yield Finding(WARNING, "mixed_depths", text, tuple(wide))


def telling_findings(images: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    """Yield file properties that give the label away: no value is common to both labels."""
    properties: dict[str, Callable[[str, ImageFacts], Hashable]] = {
        "size": lambda _, facts: facts.size,
        "mode": lambda _, facts: facts.mode,
        "file type": lambda path, _: Path(path).suffix.lower(),
    }
    for name, read in properties.items():
        seen: dict[int, set[Hashable]] = {label: set() for label in LABELS.values()}
        for path, facts in images.items():
            seen[LABELS[path.split("/")[1]]].add(read(path, facts))
        if all(seen.values()) and not set.intersection(*seen.values()):
            text = f"the {name} alone tells normal from abnormal images: none is common to both"
            yield Finding(WARNING, "telling", text)


def mask_findings(contents: Contents) -> Iterator[Finding]:
    """Yield masks that do not fit their image, or mark nothing that counts."""
    if not contents.info.masks:
        return
    pairs = {
        group.mask(mask): contents.images[group.image(image)]
        for group in contents.abnormal()
        for image, mask in group.pairs.masks.items()
    }
    masks = {path: contents.masks[path] for path in pairs if not contents.masks[path].problem}
    yield from mask_size_findings(masks, pairs)
    labels = [path for path, facts in masks.items() if is_lost(facts)]
    yield from found(ERROR, "mask_labels", "mask", lost_text(contents, masks), labels)
    empty = [path for path, facts in masks.items() if facts.empty]
    yield from found(
        WARNING, "mask_empty", "mask", "of an abnormal image that marks nothing", empty
    )
    small = [path for path, facts in masks.items() if facts.vanishes]
    text = f"whose marks are too small to be seen at {SIDE} x {SIDE} pixels"
    yield from found(NOTE, "mask_vanishes", "mask", text, small)
    yield from grey_findings(contents, masks)


def mask_size_findings(
    masks: Mapping[str, MaskFacts], images: Mapping[str, ImageFacts]
) -> Iterator[Finding]:
    """Yield masks whose size differs from their image's: an error if the shape does too."""
    scaled: list[str] = []
    other: list[str] = []
    for path, facts in masks.items():
        image = images[path]
        if image.problem or image.size == facts.size:
            continue
        (scaled if same_shape(facts.size, image.size) else other).append(path)
    text = "of another shape than the image, which it cannot lie on; replace it"
    yield from found(ERROR, "mask_shape", "mask", text, other)
    yield from found(WARNING, "mask_size", "mask", "of another size than the image", scaled)


def is_lost(facts: MaskFacts) -> bool:
    """Return whether a mask marks something of which nothing is foreground."""
    return not facts.foreground and not facts.empty


def lost_text(contents: Contents, masks: Mapping[str, MaskFacts]) -> str:
    """Return what is said of masks that mark something of which nothing is foreground."""
    greys = sorted({grey for facts in masks.values() if is_lost(facts) for grey in facts.greys})
    text = f"that would count as empty: grey values {name_greys(greys)}, "
    if contents.info.mask_rule == ANY:
        return text + "the marks are in another channel; save lesions as 255 and background as 0"
    text += f"foreground is above {FOREGROUND}; save lesions as 255 and background as 0, "
    return text + f"or set mask_rule = '{ANY}' in object.toml (--mask_rule {ANY})"


def name_greys(greys: list[float]) -> str:
    """Return grey values as text."""
    return " ".join(map(plain, greys[:GREYS_SHOWN])) + " ..." * (len(greys) > GREYS_SHOWN)


def grey_findings(contents: Contents, masks: Mapping[str, MaskFacts]) -> Iterator[Finding]:
    """Yield the grey values of masks that are not two-valued, and what becomes of them."""
    pixels: Counter[float] = Counter()
    for facts in masks.values():
        pixels.update(facts.greys)
    greys = sorted(pixels)
    marked = [grey for grey in greys if grey]
    if not marked:
        return
    brain = contents.info.name == BRAIN
    if len(marked) < 2:
        if brain:
            yield Finding(NOTE, "mask_greys", f"masks are two-valued: grey {name_greys(greys)}")
        return
    between = marked[:-1]
    several = [path for path, facts in masks.items() if set(between) & facts.greys.keys()]
    count = sum(pixels[grey] for grey in between)
    dropped = sum(facts.dropped for facts in masks.values())
    above = sum(facts.above for facts in masks.values())
    text = f"with grey values in between, neither 0 nor {plain(marked[-1])}; of all masks greys "
    text += f"{name_greys(greys)}, in between {count / pixels.total():.2%} of the pixels and "
    text += f"{count / sum(pixels[grey] for grey in marked):.1%} of the marked ones; "
    text += rule_text(contents.info.mask_rule, between)
    text += f"; {HALF} drops {dropped / max(above, 1):.1%} of the pixels that {ANY} counts"
    scheme = brain and set(marked) <= BRAIN_GREYS
    if scheme:
        text += "; this is the benchmark's scheme of three greys (tumour labels 1, 2, 4)"
    yield from found(NOTE if scheme else WARNING, "mask_greys", "mask", text, several)


def rule_text(rule: str, between: list[float]) -> str:
    """Return which of some grey values are foreground."""
    if rule == ANY:
        return f"all count as foreground (mask rule {ANY})"
    low = [grey for grey in between if grey <= FOREGROUND]
    lost = f"{name_greys(low)} count as background" if low else "all count as foreground"
    return f"{lost} (mask rule {HALF}: foreground is above {FOREGROUND})"


def duplicate_findings(contents: Contents) -> Iterator[Finding]:
    """Yield images of the same content: in both splits, of both labels, or twice in one split."""
    same: defaultdict[bytes, list[str]] = defaultdict(list)
    for path, facts in contents.readable().items():
        same[facts.digest].append(path)
    groups = [paths for paths in same.values() if len(paths) > 1]
    splits = [paths for paths in groups if len({path.split("/")[0] for path in paths}) > 1]
    labels = [paths for paths in groups if len({path.split("/")[1] for path in paths}) > 1]
    within = [paths for paths in groups if has_twins(paths)]
    text = "in valid and in test, so that shots are tested on themselves; remove one"
    yield from found(ERROR, "duplicate_splits", "image", text, map(" = ".join, splits))
    text = "both normal (good) and abnormal (Ungood); remove one"
    yield from found(ERROR, "duplicate_labels", "image", text, map(" = ".join, labels))
    text = "more than once in a split"
    yield from found(WARNING, "duplicate", "image", text, map(" = ".join, within))


def has_twins(paths: list[str]) -> bool:
    """Return whether two of some paths have the same split and label."""
    return len({tuple(path.split("/")[:2]) for path in paths}) < len(paths)

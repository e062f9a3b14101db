"""The objects of a run; checks of all images, masks and shots before its first step."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from CLIP.weight_files import DEMO_MODELS
from dataset.cases import places
from dataset.catalog import ObjectInfo, find_object
from dataset.check import Checked, check_records, check_scorable
from dataset.folder import ImageSet
from dataset.image_cache import ImageCache
from dataset.intensity import Intensity
from dataset.layout import (
    LABELS,
    image_folder,
    is_dicom_name,
    name_other_files,
    object_folder,
    object_names,
    other_files,
)
from dataset.medical_few import evaluation_set, validation_set
from dataset.medical_zero import others, zero_shot_set
from dataset.shots import Shots, choose_shots
from errors import UserError
from mvfa.accelerator import choose_device
from mvfa.console import note, progress
from mvfa.distributed import World
from mvfa.options import Options
from mvfa.schedule import note_short_epochs


def target_object(options: Options, world: World | None = None) -> ObjectInfo:
    """Return what is known of the object of --obj, and say what the catalog does not.

    The flags --noun, --mask_rule and --intensity come first, see `find_object`. Raises UserError.
    """
    info = find_object(
        options.data_path, options.obj, options.noun, options.mask_rule, options.intensity
    )
    note_objects([info], world or World())
    return info


def training_objects(options: Options, target: ObjectInfo, world: World) -> list[ObjectInfo]:
    """Return the objects that a zero-shot model trains on: --train_objects, else the benchmark's.

    The target is never among them. Raises UserError if one has no folder.
    """
    data = options.data_path
    names = options.train_objects or [other.name for other in others(target.name)]
    missing = [name for name in names if not object_folder(data, name).is_dir()]
    if missing:
        there = [name for name in object_names(data) if name != target.name]
        raise UserError(
            f"no folder {object_folder(data, missing[0])}: zero-shot training reads "
            f"{' '.join(names)} (missing: {' '.join(missing)}); run python prepare_data.py "
            "download, or choose objects by --train_objects "
            f"(there are: {' '.join(there) or 'none'})"
        )
    objects = [find_object(data, name) for name in names]
    note_objects(objects, world)
    return objects


def note_objects(objects: Iterable[ObjectInfo], world: World) -> None:
    """Say of each object what does not come from the catalog."""
    for info in objects:
        for line in info.notes:
            note(line, world)


def note_other_files(
    data_path: Path, objects: Iterable[ObjectInfo], split: str, world: World
) -> None:
    """Say how many files of a split are skipped because they are no images, with some names."""
    for info in objects:
        folders = [image_folder(data_path, info.name, split, state) for state in LABELS]
        if text := name_other_files(other_files(folders)):
            note(f"skipped in {object_folder(data_path, info.name) / split}: {text}", world)


def note_wide_images(images: ImageSet, name: str, world: World) -> None:
    """Say how many images of a checked set have more than 8 bit, and how they are scaled."""
    rules: dict[Intensity, bool] = {}  # with whether DICOM files are among the images
    for record in images.records:
        rule = record.object.intensity
        rules[rule] = rules.get(rule, False) or is_dicom_name(record.image)
    how = "; ".join(f"{rule.words(dicom)} (--intensity {rule})" for rule, dicom in rules.items())
    count = f"{images.wide_images} of {len(images)} {name}"
    note(f"{count} have more than 8 bit: scaled {how}", world)


def note_published_counts(images: ImageSet, options: Options, world: World) -> None:
    """Say of which objects of the benchmark a set does not have as many images as published.

    The set holds their test images. Nothing is said in a demo, whose images are invented.
    """
    if options.model_name in DEMO_MODELS:
        return
    counts = Counter(record.object for record in images.records)
    other = [
        f"{info.name} has {count:,} (published: {info.test_images:,})"
        for info, count in counts.items()
        if info.test_images not in (0, count)
    ]
    if other:
        text = "so results are not comparable with published ones"
        note(f"test images are not the benchmark's: {', '.join(other)}, {text}", world)


def check_images(images: ImageSet, name: str, world: World) -> Checked:
    """Check the images and masks of a set, and say how many masks are empty.

    `name` says what they are. Raises UserError for the first one that cannot be used.
    """
    with progress(len(images), f"check {name}", "image", world) as bar:
        checked = check_records(images.records, images.side, bar.update)
    images.wide_images = checked.wide
    if checked.empty:
        message = f"{checked.empty} of {checked.masks} masks of {name} are empty"
        note(f"{message}: nothing is marked in them", world)
    return checked


def load_shots(options: Options, target: ObjectInfo, world: World) -> Shots:
    """Choose the shots that the options name, and check their images and masks.

    Raises UserError if a shot is missing or cannot be used.
    """
    shots = choose_shots(
        options.data_path,
        target,
        options.shot,
        lists=options.fewshot_path,
        seed=options.seed,
        draw=options.iterate,
        abnormal=options.abnormal_shot != 0,
    )
    if shots.note:
        note(shots.note, world)
    note_other_files(options.data_path, [target], "valid", world)
    images = ImageSet([*shots.normal, *shots.abnormal], options.img_size)
    check_images(images, f"shots of {target.name}", world)
    if images.wide_images:
        note_wide_images(images, f"shots of {target.name}", world)
    return shots


def image_cache(options: Options) -> ImageCache | None:
    """Return what keeps the decoded images of a run on disk; None where nothing does.

    By default where the run's device is not the CPU: a CPU takes far longer to score an image than
    to decode it. Raises UserError for a device that cannot be used.
    """
    wanted = options.cache_images
    if wanted is None:
        wanted = choose_device(options.device).type != "cpu"
    folder = options.image_cache
    if not (wanted and folder):
        return None
    note_unwritable(folder)
    return ImageCache(folder)


@cache
def note_unwritable(folder: Path) -> None:
    """Say, once, of a folder of decoded images that it cannot be written: it only costs time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        note(f"{folder} cannot be written: decoded images are not cached (--cache_dir)", World())


def load_test_set(options: Options, target: ObjectInfo, world: World) -> ImageSet:
    """Return the test split of an object, checked: its files, and whether AUROCs can be computed.

    No other object's folder is read. Raises UserError.
    """
    cache = image_cache(options)
    images = evaluation_set(options.data_path, target, options.img_size, cache)
    images.places = places(images.records, target, object_folder(options.data_path, target.name))
    note_other_files(options.data_path, [target], "test", world)
    note_published_counts(images, options, world)
    name = f"test images of {target.name}"
    checked = check_images(images, name, world)
    if images.wide_images:
        note_wide_images(images, name, world)
    check_scorable(checked, target.masks, images.side)
    images.empty_masks = checked.empty
    return images


def load_training_set(options: Options, objects: Sequence[ObjectInfo], world: World) -> ImageSet:
    """Return the zero-shot training set, checked: the test splits of some objects."""
    images = zero_shot_set(options.data_path, objects, options.img_size, image_cache(options))
    note_other_files(options.data_path, objects, "test", world)
    note_published_counts(images, options, world)
    check_images(images, "training images", world)
    if images.wide_images:
        note_wide_images(images, "training images", world)
    note_short_epochs(len(images), options.batch_size * world.size, world)
    return images


def load_valid_sets(
    options: Options, objects: Sequence[ObjectInfo], world: World, shots: Shots | None = None
) -> list[tuple[ObjectInfo, ImageSet]]:
    """Return the images of `valid` that are not shots, by object.

    Return an empty list with --select last, and if an object has no usable images and --select is
    not valid. Raises UserError if --select valid needs them.
    """
    rule = options.recipe.select
    if rule == "last":
        return []
    if shots is None:  # else the shots were chosen from the same folders
        note_other_files(options.data_path, objects, "valid", world)
    try:
        sets = [(obj, load_valid_set(options, obj, world, shots)) for obj in objects]
    except UserError as error:  # an image without its mask, say
        if rule == "valid":
            raise
        note(f"--select valid is not evaluated: {error}", world)
        return []
    complete = [(obj, images) for obj, images in sets if images is not None]
    if len(complete) == len(sets):
        return complete
    missing = ", ".join(obj.name for obj, images in sets if images is None)
    note(f"--select valid is not evaluated: too few images besides shots in {missing}", world)
    return []


def load_valid_set(
    options: Options, target: ObjectInfo, world: World, shots: Shots | None
) -> ImageSet | None:
    """Return the images of an object's `valid` that are not shots, checked.

    None unless both labels are among them. Raises UserError if --select valid needs them.
    """
    cache = image_cache(options)
    images = validation_set(options.data_path, target, options.img_size, shots, cache)
    if images is not None:
        check_images(images, f"valid images of {target.name}", world)
    elif options.recipe.select == "valid":
        raise UserError(
            f"--select valid: valid/ of {target.name} has not both normal and abnormal images that "
            f"are no shots; choose --select last"
        )
    return images

"""Check all images, masks and shots that a run will read before its first step."""

from collections.abc import Sequence

from dataset.catalog import ObjectInfo
from dataset.check import Checked, check_records, check_scorable
from dataset.folder import ImageSet
from dataset.medical_few import evaluation_set, validation_set
from dataset.medical_zero import zero_shot_set
from dataset.shots import Shots, choose_shots
from errors import UserError
from mvfa.console import note, progress
from mvfa.distributed import World
from mvfa.options import Options
from mvfa.schedule import note_short_epochs


def check_images(images: ImageSet, name: str, world: World) -> Checked:
    """Check the images and masks of a set, and say how many masks are empty.

    `name` says what they are. Raises UserError for the first one that cannot be used.
    """
    with progress(len(images), f"check {name}", "image", world) as bar:
        checked = check_records(images.records, images.side, bar.update)
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
    images = ImageSet([*shots.normal, *shots.abnormal], options.img_size)
    check_images(images, f"shots of {target.name}", world)
    return shots


def load_test_set(options: Options, target: ObjectInfo, world: World) -> ImageSet:
    """Return the test split of an object, checked: its files, and whether AUROCs can be computed.

    No other object's folder is read. Raises UserError.
    """
    images = evaluation_set(options.data_path, target, options.img_size)
    checked = check_images(images, f"test images of {target.name}", world)
    check_scorable(checked, target.masks, images.side)
    images.empty_masks = checked.empty
    return images


def load_training_set(options: Options, target: ObjectInfo, world: World) -> ImageSet:
    """Return the zero-shot training set, checked: the test splits of the other objects."""
    images = zero_shot_set(options.data_path, target, options.img_size)
    check_images(images, "training images", world)
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
    images = validation_set(options.data_path, target, options.img_size, shots)
    if images is not None:
        check_images(images, f"valid images of {target.name}", world)
    elif options.recipe.select == "valid":
        raise UserError(
            f"--select valid: valid/ of {target.name} has not both normal and abnormal images that "
            f"are no shots; choose --select last"
        )
    return images

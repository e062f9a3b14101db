"""Cached images are those that are decoded; what is wrong with the folder costs time only."""

import errno
import hashlib
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import calibrate
from dataset import folder, image_cache
from dataset.catalog import object_info
from dataset.folder import ImageSet, list_split, load_image
from dataset.image_cache import DIGEST, ImageCache, entry_key, read_entry, write_entry
from dataset.intensity import DEFAULT, intensity
from errors import UserError
from mvfa import inputs
from mvfa.features import FeatureLoader
from mvfa.inputs import image_cache as cache_of
from mvfa.options import parse
from report.arguments import parse as reproduce_options
from report.cells import cell_specs
from report.jobs import jobs_of
from tests.image_sets import CPU, drawn_method
from tests.script_runs import Runs
from tests.troubles import largest_file, small_disk
from tests.wide_images import COLOUR, GREY, write_dicom, write_png

SIDE = 24
WINDOW = {"WindowCenter": 900, "WindowWidth": 1500}


def pattern(shape: tuple[int, ...], top: int) -> np.ndarray:
    """Return integers up to `top` that look random and are the same everywhere."""
    counted = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    return (counted * 2654435761 % 1000003) % (top + 1)


def grey(shape: tuple[int, ...] = (60, 50)) -> np.ndarray:
    return pattern(shape, 255).astype(np.uint8)


def save(path: Path, values: np.ndarray, **more) -> None:
    """Write pixels of 8 bit with Pillow."""
    Image.fromarray(values).save(path, **more)


FILES = {
    "grey.png": lambda path: save(path, grey()),
    "colour.png": lambda path: save(path, grey((40, 70, 3))),
    "alpha.png": lambda path: save(path, grey((40, 70, 4))),
    "nearly_grey.png": lambda path: save(
        path, np.stack([grey(), grey(), np.roll(grey(), 1)], axis=-1)
    ),
    "grey.jpg": lambda path: save(path, grey(), quality=90),
    "colour.jpg": lambda path: save(path, grey((40, 70, 3)), quality=90),
    "grey16.png": lambda path: write_png(path, pattern((60, 50), 40_000), GREY),
    "colour16.png": lambda path: write_png(path, pattern((60, 50, 3), 40_000), COLOUR),
    "plain.dcm": lambda path: write_dicom(path, pattern((60, 50), 4095).astype(np.uint16)),
    "window.dcm": lambda path: write_dicom(
        path, pattern((60, 50), 4095).astype(np.uint16), **WINDOW
    ),
}


def count_reads(monkeypatch, module) -> list[Path]:
    """Return a list that grows by each file that a module decodes."""
    paths = []
    read = module.read_rgb

    def counted(path: Path, *more):
        paths.append(path)
        return read(path, *more)

    monkeypatch.setattr(module, "read_rgb", counted)
    return paths


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """List the files that a cache decodes."""
    return count_reads(monkeypatch, image_cache)


@pytest.fixture
def uncached(monkeypatch) -> list[Path]:
    """List the files that are decoded without a cache."""
    return count_reads(monkeypatch, folder)


@pytest.fixture
def picture(tmp_path) -> Path:
    FILES["grey.png"](tmp_path / "grey.png")
    return tmp_path / "grey.png"


@pytest.fixture
def images(tmp_path) -> ImageCache:
    return ImageCache(tmp_path / "images")


def entries(top: Path) -> list[Path]:
    """List everything in the folder of a cache but folders."""
    return sorted(path for path in top.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("name", FILES)
def test_images_are_those_that_are_decoded(tmp_path, images, decoded, name):
    path = tmp_path / name
    FILES[name](path)
    cases = [(side, rule) for side in (1, SIDE, 240) for rule in ("auto", "full", "-5:2000")]
    for _ in range(2):
        for side, rule in cases:
            image = images.load(path, side, intensity(rule))
            expected = load_image(path, side, intensity(rule))
            assert image.dtype == torch.uint8
            assert image.is_contiguous()
            assert image.shape == (3, side, side)
            assert torch.equal(image, expected)
    assert decoded == [path] * len(cases)  # in the first turn
    assert len(entries(images.folder)) == len(cases)


def test_a_grey_image_is_one_plane(tmp_path, images):
    sizes = {}
    for name in ("grey.png", "colour.png", "nearly_grey.png"):
        FILES[name](tmp_path / name)
        before = set(entries(images.folder))
        images.load(tmp_path / name, 240)
        (entry,) = set(entries(images.folder)) - before
        sizes[name] = entry.stat().st_size
    assert sizes["grey.png"] == DIGEST + 240 * 240
    assert sizes["colour.png"] == sizes["nearly_grey.png"] == DIGEST + 3 * 240 * 240


def test_a_changed_file_is_decoded_again(picture, images, decoded):
    """Also if its name, size and time are as before."""
    raw = picture.with_suffix(".bmp")
    save(raw, grey())
    images.load(raw, SIDE)
    before = raw.stat()
    save(raw, grey()[::-1])
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = raw.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    changed = images.load(raw, SIDE)
    assert torch.equal(changed, load_image(raw, SIDE))
    assert decoded == [raw] * 2


def test_the_place_of_a_file_does_not_matter(picture, images, decoded):
    images.load(picture, SIDE)
    images.load(picture.rename(picture.with_name("moved.png")), SIDE)
    assert decoded == [picture]


def test_a_suffix_that_changes_the_reader_matters(tmp_path, images):
    """DICOM is told by its suffix: the same bytes under another name are refused, not found."""
    FILES["plain.dcm"](tmp_path / "a.dcm")
    images.load(tmp_path / "a.dcm", SIDE)
    other = (tmp_path / "a.dcm").rename(tmp_path / "a.png")
    with pytest.raises(UserError) as plain:
        load_image(other, SIDE)
    with pytest.raises(UserError) as cached:
        images.load(other, SIDE)
    assert str(cached.value) == str(plain.value)


def test_the_key_depends_on_everything(picture, monkeypatch):
    keys = [entry_key(picture, SIDE, DEFAULT), entry_key(picture, SIDE + 1, DEFAULT)]
    keys += [entry_key(picture, SIDE, intensity(rule)) for rule in ("full", "0:1", "0:2")]
    keys += [entry_key(picture.rename(picture.with_suffix(".dcm")), SIDE, DEFAULT)]
    picture.with_suffix(".dcm").rename(picture)
    monkeypatch.setattr(image_cache, "FORMAT", image_cache.FORMAT + 1)
    keys += [entry_key(picture, SIDE, DEFAULT)]
    known = image_cache.versions(False)
    assert {"pillow", "numpy", "libjpeg_turbo", "machine"} <= set(known)
    for name in known:
        changed = known | {name: "0"}
        monkeypatch.setattr(image_cache, "versions", lambda _, changed=changed: changed)
        keys += [entry_key(picture, SIDE, DEFAULT)]
    assert all(keys)
    assert len(set(keys)) == len(keys)


def test_dicom_depends_on_its_readers():
    more = image_cache.versions(True)
    assert image_cache.versions(False).items() < more.items()
    assert {"pydicom", "highdicom"} <= set(more)


# SHA-256 of the pixels at 24, of files that no encoder changes. If a change of this program changes
# them, raise image_cache.FORMAT: entries that were written before are no longer right.
PIXELS = {
    "grey.png": "5e4a1d5e5a78d4ea",
    "colour.png": "477b38914272d063",
    "grey16.png": "2fd94ff13c1592ce",
    "colour16.png": "197c640f2406a6a9",
    "plain.dcm": "9c73437b3a942eba",
    "window.dcm": "6ee851105ab0e192",
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_those_of_this_format(tmp_path, name):
    FILES[name](tmp_path / name)
    image = load_image(tmp_path / name, SIDE)
    assert image_cache.FORMAT == 1
    assert hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] == PIXELS[name]


def in_place(make):
    """Return damage that puts something else in an entry's place."""

    def damage(entry: Path) -> None:
        entry.unlink()
        make(entry)

    return damage


DAMAGE = {
    "empty": lambda entry: entry.write_bytes(b""),
    "cut off": lambda entry: entry.write_bytes(entry.read_bytes()[:-1]),
    "only its digest": lambda entry: entry.write_bytes(entry.read_bytes()[:DIGEST]),
    "longer": lambda entry: entry.write_bytes(entry.read_bytes() + b"\0"),
    "zeros, as after a power cut": lambda entry: entry.write_bytes(bytes(DIGEST + SIDE**2)),
    "another's": lambda entry: entry.write_bytes(of_another()),
    "text": lambda entry: entry.write_text("broken"),
    "a folder": in_place(Path.mkdir),
    "a pipe": in_place(os.mkfifo),
    "an endless file": in_place(lambda entry: entry.symlink_to("/dev/zero")),
    "a broken link": in_place(lambda entry: entry.symlink_to("nowhere")),
    "a link to itself": in_place(lambda entry: entry.symlink_to(entry.name)),
}


def of_another() -> bytes:
    """Return a whole entry of another key."""
    pixels = bytes(SIDE**2)
    return image_cache.digest("0" * 64, pixels) + pixels


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_made_again(picture, images, decoded, kind):
    expected = images.load(picture, SIDE)
    (entry,) = entries(images.folder)
    good = entry.read_bytes()
    DAMAGE[kind](entry)
    for _ in range(2):
        assert torch.equal(images.load(picture, SIDE), expected)
        assert not entry.is_symlink()
        assert entry.read_bytes() == good
        assert entries(images.folder) == [entry]
    assert decoded == [picture] * 2


def test_a_link_in_an_entrys_place_is_replaced_and_its_target_kept(picture, images, decoded):
    """Also a link that itself, a path, is as long as an entry."""
    side = 14
    expected = images.load(picture, side)
    (entry,) = entries(images.folder)
    length = DIGEST + side**2 - len(f"{picture.parent}/")
    target = entry.rename(picture.with_name("t" * length))
    entry.symlink_to(target)
    assert entry.lstat().st_size == target.stat().st_size
    assert torch.equal(images.load(picture, side), expected)
    assert not entry.is_symlink()
    assert target.read_bytes() == entry.read_bytes()
    assert decoded == [picture] * 2


def test_a_folder_that_holds_something_stays(picture, images, decoded):
    expected = images.load(picture, SIDE)
    (entry,) = entries(images.folder)
    entry.unlink()
    entry.mkdir()
    (entry / "file").write_text("of somebody")
    for _ in range(2):
        assert torch.equal(images.load(picture, SIDE), expected)
    assert entries(images.folder) == [entry / "file"]
    assert decoded == [picture] * 3


def test_an_entry_that_cannot_be_read_is_made_again(picture, images, decoded, monkeypatch):
    expected = images.load(picture, SIDE)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.suffix == image_cache.SUFFIX:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert torch.equal(images.load(picture, SIDE), expected)
    assert decoded == [picture] * 2


def test_every_changed_bit_is_seen(tmp_path):
    side = 4
    for image in (grey((3, side, side)), grey((1, side, side)).repeat(3, axis=0)):
        entry = tmp_path / "entry"
        write_entry(entry, "key", torch.from_numpy(image))
        assert torch.equal(read_entry(entry, "key", side), torch.from_numpy(image))
        assert read_entry(entry, "yek", side) is None
        good = entry.read_bytes()
        for bit in range(8 * len(good)):
            changed = bytearray(good)
            changed[bit // 8] ^= 1 << bit % 8
            entry.write_bytes(changed)
            assert read_entry(entry, "key", side) is None


def test_a_file_that_is_replaced_meanwhile_is_not_cached(picture, images, monkeypatch):
    """What was decoded may not be what was hashed."""
    read = image_cache.read_rgb

    def replaced(path: Path, *more):
        save(path, grey()[::-1])
        return read(path, *more)

    monkeypatch.setattr(image_cache, "read_rgb", replaced)
    assert torch.equal(images.load(picture, SIDE), load_image(picture, SIDE))
    assert entries(images.folder) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.write_text("no image")])
def test_what_cannot_be_decoded_is_said_as_without_a_cache(tmp_path, images, make):
    path = tmp_path / "a.dcm"
    make(path)
    with pytest.raises(UserError) as plain:
        load_image(path, SIDE)
    for _ in range(2):
        with pytest.raises(UserError) as cached:
            images.load(path, SIDE)
        assert str(cached.value) == str(plain.value)
    assert entries(images.folder) == []


def test_a_missing_file_is_said_as_without_a_cache(tmp_path, images):
    for suffix in (".png", ".dcm"):
        path = (tmp_path / "missing").with_suffix(suffix)
        with pytest.raises(UserError) as plain:
            load_image(path, SIDE)
        with pytest.raises(UserError) as cached:
            images.load(path, SIDE)
        assert str(cached.value) == str(plain.value)


def check_costs_only_time(picture: Path, images: ImageCache, decoded: list[Path]) -> None:
    """Check that images come out right of a cache that holds nothing."""
    for _ in range(2):
        assert torch.equal(images.load(picture, SIDE), load_image(picture, SIDE))
    assert decoded == [picture] * 2
    assert entries(images.folder) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_refuses_costs_only_time(picture, images, decoded, monkeypatch, number):
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number), str(path), len(data))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        check_costs_only_time(picture, images, decoded)
    images.load(picture, SIDE)
    assert len(entries(images.folder)) == 1


def test_a_folder_that_cannot_be_made_costs_only_time(picture, images, decoded):
    images.folder.write_text("in the way")
    for _ in range(2):
        assert torch.equal(images.load(picture, SIDE), load_image(picture, SIDE))
    assert decoded == [picture] * 2


def test_a_limit_of_file_sizes_costs_only_time(picture, images, decoded):
    with largest_file(100):
        check_costs_only_time(picture, images, decoded)


def test_a_full_disk_costs_only_time(picture, images, decoded, monkeypatch):
    monkeypatch.setattr(image_cache, "LEAST_FREE", 0)
    with small_disk(images.folder, "16k"):
        (images.folder / "filler").write_bytes(bytes(12_288))
        for _ in range(2):
            assert torch.equal(images.load(picture, 96), load_image(picture, 96))
        assert [path.name for path in entries(images.folder)] == ["filler"]
    assert decoded == [picture] * 2


def test_the_last_of_a_disk_is_left_to_the_run(picture, images, decoded, monkeypatch):
    monkeypatch.setattr(image_cache, "LEAST_FREE", 2**62)
    check_costs_only_time(picture, images, decoded)


def load_all(top: Path, paths: list[Path], start, failures) -> None:
    """Load images again and again, as one of several processes."""
    cache = ImageCache(top)
    expected = [load_image(path, SIDE) for path in paths]
    start.wait()
    for turn in range(20):
        for path, image in zip(paths, expected, strict=True):
            if turn % 4 == 0:  # so that all write it again
                key = entry_key(path, SIDE, DEFAULT)
                entry = top / key[:2] / f"{key}{image_cache.SUFFIX}"
                entry.unlink(missing_ok=True)
            if not torch.equal(cache.load(path, SIDE), image):
                failures.put(path.name)


def test_several_processes_share_a_folder(tmp_path, images):
    paths = []
    for name in ("grey.png", "colour.png", "grey.jpg"):
        FILES[name](tmp_path / name)
        paths.append(tmp_path / name)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    failures = context.SimpleQueue()
    arguments = (images.folder, paths, start, failures)
    workers = [context.Process(target=load_all, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert failures.empty()
    for path in paths:
        images.load(path, SIDE)
    written = entries(images.folder)
    assert len(written) == 3
    for entry in written:
        assert read_entry(entry, entry.stem, SIDE) is not None


def test_workers_of_any_start_method_get_it(images, picture):
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.load(picture, SIDE), load_image(picture, SIDE))
    assert len(entries(images.folder)) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_the_cache(demo_root, tiny, images, decoded, workers):
    records = list_split(demo_root / "data", object_info("Brain"), "test")
    method = drawn_method(tiny)
    features = []
    for cache in (None, images, images):
        loader = FeatureLoader(
            ImageSet(records, 32, cache), method, device=CPU, batch_size=4, workers=workers
        )
        features.append(torch.cat([batch.features for batch in loader.batches()]))
        masks = loader.masks(range(len(records)))
        assert masks.any()
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])
    assert len(entries(images.folder)) == len(records)
    read = records[:1] if workers else records  # workers read the others
    assert decoded == [record.image for record in read]


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def test_a_second_run_decodes_no_image(runs, tmp_path, decoded, uncached):
    """Training, test and detector share the images; scores are those without a cache."""
    cache = tmp_path / "cache"
    runs("train_few", "Brain", "--epoch", 1)
    runs("test_few", "Brain")
    scores = (runs.out("test_few") / "scores.csv").read_bytes()
    assert not decoded
    uncached.clear()
    more = ["--cache_dir", cache, "--cache_images", "yes"]
    for _ in range(2):
        runs("test_few", "Brain", *more)
        assert (runs.out("test_few") / "scores.csv").read_bytes() == scores
        assert len(decoded) == 10 + 4  # of test, and of valid without the shots
    runs("train_few", "Brain", "--epoch", 1, *more)
    arguments = runs.flags("calibrate_few", "Brain", *more)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "Brain.detector")
    calibrate.main(arguments)
    assert len(decoded) == len(set(decoded)) == len(entries(cache / "images")) == 14
    assert len(set(uncached)) == 4  # the shots
    assert not set(uncached) & set(decoded)


def test_zero_shot_runs_share_their_images(runs, tmp_path, decoded, uncached):
    more = ["--cache_images", "yes", "--cache_dir", tmp_path / "cache"]
    training = ["--train_objects", "Liver", "--epoch", 1, "--resume", "no", *more]
    for _ in range(2):
        runs("train_zero", "Brain", *training)
        assert len(decoded) == 10 + 10 + 8  # tests of both objects, valid of the source
    runs("test_zero", "Brain", *more)
    assert len(decoded) == len(set(decoded)) == 28
    assert uncached == []


def test_a_cpu_writes_no_images_unless_asked(runs, tmp_path, decoded, uncached):
    runs("test_few", "Brain", "--method", "clip", "--cache_dir", tmp_path / "cache")
    assert [path.parent.name for path in entries(tmp_path / "cache")] == ["text"]
    assert decoded == []
    assert len(uncached) >= 10


def test_no_cache_holds_no_images(runs, tmp_path, decoded):
    more = ["--cache_dir", tmp_path / "cache", "--cache_gb", 0]
    runs("test_few", "Brain", "--method", "clip", *more)
    assert not (tmp_path / "cache").exists()
    assert decoded == []
    with pytest.raises(UserError, match="--cache_images yes with --cache_gb 0"):
        parse("test_few", ["--obj", "Brain", "--cache_images", "yes", "--cache_gb", "0"])


def test_a_folder_that_cannot_be_written_is_named_once(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("")
    options = parse("test_few", f"--obj Brain --cache_images yes --cache_dir {taken}".split())
    for _ in range(3):
        assert cache_of(options) is not None
    said = capsys.readouterr().err
    assert said.count("cannot be written: decoded images are not cached (--cache_dir)") == 1
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "device", "cached"),
    [
        ("", "cpu", False),
        ("", "cuda", True),
        ("", "mps", True),
        ("--cache_images yes", "cpu", True),
        ("--cache_images no", "cuda", False),
        ("--cache_gb 0", "cuda", False),
    ],
)
def test_images_are_cached_where_the_device_is_no_cpu(monkeypatch, tmp_path, flags, device, cached):
    monkeypatch.setattr(inputs, "choose_device", lambda _: torch.device(device))
    given = ["--obj", "Brain", "--cache_dir", str(tmp_path), *flags.split()]
    for script in ("train_few", "train_zero", "test_few", "test_zero"):
        cache = cache_of(parse(script, given))
        assert (cache and cache.folder) == (tmp_path / "images" if cached else None)


def test_a_reproduction_hands_the_answer_on():
    for answer in ("yes", "no"):
        options = reproduce_options(["table1", "--cache_images", answer]).options
        (spec, *_) = cell_specs(options)
        for job in jobs_of(spec, options, Path()):
            asked = parse(job.script, job.flags)
            assert asked.cache_images is (answer == "yes")

"""What a damaged file makes of its reader is one line that names the file, in every process."""

import ast
import os
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

from dataset import files
from dataset.catalog import object_info
from dataset.folder import ImageSet, list_split
from dataset.intensity import DEFAULT
from dataset.layout import is_marked, list_images
from dataset.pixels import check_file, read_pixels, read_rgb
from errors import UserError
from mvfa.embedding import read_image
from mvfa.features import FeatureLoader
from prediction.discovery import find
from prediction.reading import file_pixels
from preparation.audit_files import look_at_image
from tests.test_structure import sources, title

RAISED = [
    Image.DecompressionBombError("too many pixels"),
    Image.DecompressionBombWarning("many pixels"),
    UnidentifiedImageError("unknown"),
    MemoryError(),
    SyntaxError("not a TIFF file"),
    struct.error("unpack requires 4 bytes"),
    zlib.error("incorrect header check"),
    OverflowError("int too large"),
    RecursionError("too deep"),
    EOFError(),
    KeyError(277),
    IndexError("index out of range"),
    AttributeError("no tag_v2"),
    AssertionError(),
    NotImplementedError("tiles"),
    ZeroDivisionError("division by zero"),
    RuntimeError("decoder -2\nsecond line"),
    OSError("image file is truncated"),
    PermissionError(13, "Permission denied", "/somewhere/else.png"),
]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"


def one_line(call, *arguments) -> str:
    """Return the message of a call's UserError, which is one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def read_eight(path: Path) -> Image.Image:
    """Read an image as a run does."""
    return read_rgb(path, DEFAULT)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "a.png"
    Image.new("L", (6, 5)).save(path)
    return path


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_every_error_of_a_decoder_is_one_line(image, monkeypatch, error):
    def fail(*_arguments: object, **_settings: object):
        raise error

    expected = rf"{image} is not a readable image ("
    monkeypatch.setattr(Image.Image, "convert", fail)
    assert one_line(read_eight, image).startswith(expected)
    monkeypatch.setattr(Image, "open", fail)
    message = one_line(check_file, image)
    assert message.startswith(expected)
    assert "()" not in message
    assert look_at_image(image).problem.startswith("is not a readable image (")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), zlib.error("cut")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_hands_its_error_on(demo_root, monkeypatch, tiny, error, workers):
    """Before, those of these classes were a traceback of 28 lines."""
    from tests.image_sets import drawn_method

    def fail(*_arguments: object, **_settings: object):
        raise error

    source = ImageSet(list_split(demo_root / "data", object_info("Chest"), "test"), 32)
    method = drawn_method(tiny)
    loader = FeatureLoader(
        source, method, device=torch.device("cpu"), batch_size=2, workers=workers
    )
    monkeypatch.setattr(Image.Image, "convert", fail)
    message = one_line(lambda: next(iter(loader.batches([0, 1]))))
    assert "000.png is not a readable image (" in message


def test_nothing_is_warned_of_in_an_image_that_is_read(tmp_path, monkeypatch):
    """Pillow warns from half of the size on that it refuses."""
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files.quiet()
        assert read_eight(tmp_path / "large.png").size == (40, 30)
    assert caught == []


def test_postscript_named_png_starts_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(EPS)
    with Image.open(path) as found:  # by the list of all formats
        assert found.format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    for read in (check_file, read_eight, read_pixels):
        assert "its content is none of PNG, JPEG" in one_line(read, path)
    assert "its content is none of PNG, JPEG" in one_line(read_image, path, "RGB")
    assert "its content is none of PNG" in look_at_image(path).problem


@pytest.mark.parametrize("path", sources(), ids=title)
def test_every_image_is_opened_by_the_list_of_formats(path):
    opened = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    ]
    for call in opened:
        assert "FORMATS" in [ast.unparse(k.value) for k in call.keywords if k.arg == "formats"]


def deny_listing(monkeypatch, name: str) -> None:
    """Make listing folders of a name fail."""
    scan = os.scandir

    def deny(path: str | Path = ".") -> object:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)


def test_a_subfolder_that_cannot_be_read_is_named(image, monkeypatch):
    """Root may read everything, so listing is made to fail instead of changing permissions."""
    (image.parent / "more").mkdir()
    assert [path.name for path in list_images(image.parent)] == ["a.png"]
    deny_listing(monkeypatch, "more")
    assert one_line(list_images, image.parent) == (
        f"{image.parent}/more cannot be read (Permission denied); change its permissions, or "
        "restore it"
    )


def test_a_folder_behind_one_that_cannot_be_entered_is_named(image, monkeypatch):
    is_dir = Path.is_dir

    def deny(path: Path) -> bool:
        if path == image.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", deny)
    assert "cannot be read (Permission denied)" in one_line(list_images, image.parent)


def test_a_mac_leaves_no_images(image):
    (image.parent / "._a.png").write_bytes(b"\0\5\x16\7" + bytes(78))
    (image.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert [path.name for path in list_images(image.parent)] == ["a.png"]


@pytest.mark.parametrize("cut", [0, 1, 8, 20, 33, 60, -1])
def test_the_rest_of_a_file_is_one_line(tmp_path, cut):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(path)
    path.write_bytes(path.read_bytes()[:cut] if cut >= 0 else path.read_bytes()[:-30])
    assert "a.png is not a readable image (" in one_line(read_eight, path)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_every_error_of_a_scans_reader_is_one_line(tmp_path, monkeypatch, error):
    pydicom = pytest.importorskip("pydicom")
    nibabel = pytest.importorskip("nibabel")
    from scans.nifti import open_image

    def fail(*_arguments: object, **_settings: object):
        raise error

    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(200))
    monkeypatch.setattr(pydicom, "dcmread", fail)
    assert one_line(check_file, path).startswith(f"{path} cannot be read as a DICOM image (")
    monkeypatch.setattr(nibabel, "load", fail)
    assert one_line(open_image, path).startswith(f"{path} cannot be read as a volume (")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.dcm", "a.nii.gz", "a"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    """Opening one waits for a writer, without end."""
    path = tmp_path / name
    os.mkfifo(path)
    message = f"{path} is not a regular file but a pipe, socket or device; leave it out"
    if name == "a.nii.gz":
        pytest.importorskip("nibabel")
        from scans.nifti import open_image

        assert one_line(open_image, path) == message
    else:
        assert one_line(file_pixels, path) == message
    assert not is_marked(path)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "b.png"))
        assert "is not a regular file" in one_line(file_pixels, tmp_path / "b.png")
        assert "is not a regular file" in one_line(list_images, tmp_path)


def test_a_folder_to_score_that_cannot_be_read_is_named(image, monkeypatch):
    """Before, its images were left out without a word."""
    (image.parent / "more").mkdir()
    deny_listing(monkeypatch, "more")
    assert one_line(find, [image.parent], image.parent / "out").startswith(
        f"{image.parent}/more cannot be read (Permission denied); change its permissions"
    )

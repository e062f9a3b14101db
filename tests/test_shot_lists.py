"""Odd shot lists are refused in one line, or read as they are meant."""

import codecs
import os

import pytest

from dataset.catalog import object_info
from dataset.shots import choose_shots, read_list
from errors import UserError

LINES = "n-0: 000.png 001.png\na-0: 000.png 002.png\n"
NAMES = {"normal": ["000.png", "001.png"], "abnormal": ["000.png", "002.png"]}

READ = {
    "plain": LINES.encode(),
    "byte order mark": codecs.BOM_UTF8 + LINES.encode(),
    "ends of Windows": LINES.replace("\n", "\r\n").encode(),
    "empty lines": ("\n\n" + LINES.replace("\n", "\n  \n")).encode(),
    "no last end": LINES.rstrip().encode(),
    "spaces": LINES.replace(":", " :\t").replace(" 0", "   0").encode(),
    "a comment": b"# draws of 2025\n" + LINES.encode(),
}
REFUSED = {
    "one image twice": (
        b"n-0: 000.png 000.png\na-0: 000.png 001.png\n",
        r"names 000\.png twice in draw 0; allowed are 2 different images, so fix the list$",
    ),
    "one abnormal image twice": (
        b"n-0: 000.png 001.png\na-0: 001.png 001.png\n",
        r"names 001\.png twice in draw 0",
    ),
    "a second line": (
        LINES.encode() + b"n-0: 002.png 003.png\n",
        r"line 3: a second line 'n-0'; keep one$",
    ),
    "a second line of another draw": (
        LINES.encode() + b"a-1: 000.png 001.png\na-1: 002.png 003.png\n",
        r"line 4: a second line 'a-1'; keep one$",
    ),
    "UTF-16": (LINES.encode("utf-16"), r"is text in UTF-16; save it as UTF-8$"),
    "UTF-16 without a mark": (LINES.encode("utf-16-le"), r"is not text \(it has zero bytes\); a"),
    "Latin-1": ("n-0: é.png".encode("latin-1"), r"is not text in UTF-8 \(byte 5\); a shot list"),
    "binary": (bytes(range(256)), r"is not text in UTF-8 \(byte 128\); a shot list has lines su"),
    "nothing": (b"", r"has no line 'n-0': \(it has nothing\)"),
    "many other lines": (b"".join(b"x-%d:\n" % i for i in range(9999)), r"it has x-0, x-1, x-10"),
    "a folder above": (
        b"n-0: ../../../test/good/img/000.png 001.png\na-0: 000.png 001.png\n",
        r"names \.\./\S*000\.png, which is not in .*valid/good/img",
    ),
    "an absolute path": (
        b"n-0: /etc/passwd 001.png\na-0: 000.png 001.png\n",
        r"names /etc/passwd, which is not in .*valid/good/img",
    ),
    "an absent image": (
        b"n-0: 000.png 001.png\na-0: 000.png 999.png\n",
        r"names 999\.png, which is not in .*valid/Ungood/img",
    ),
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "Brain").mkdir()
    return tmp_path / "Brain" / "2-shot.txt"


def choose(demo_root, path):
    """Return the names of the shots of a list."""
    brain = object_info("Brain")
    return choose_shots(demo_root / "data", brain, 2, lists=path.parent.parent, seed=0).names()


@pytest.mark.parametrize("kind", READ)
def test_a_list_is_read(demo_root, path, kind):
    path.write_bytes(READ[kind])
    assert choose(demo_root, path) == NAMES


@pytest.mark.parametrize("kind", REFUSED)
def test_a_list_is_refused(demo_root, path, kind):
    """A "4-shot" run with one image, and the last of two lines, were taken without a word."""
    content, message = REFUSED[kind]
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        choose(demo_root, path)
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


def test_a_list_that_is_no_file_is_refused(path):
    os.mkfifo(path)  # reading it would never end
    with pytest.raises(UserError, match=r"is not a regular file; a shot list has lines"):
        read_list(path, 0)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"is not a regular file; a shot list has lines"):
        read_list(path, 0)


def test_a_mac_and_windows_write_the_same_list(path):
    for content in (READ["plain"], READ["ends of Windows"], LINES.replace("\n", "\r").encode()):
        path.write_bytes(content)
        assert read_list(path, 0) == (["000.png", "001.png"], ["000.png", "002.png"])

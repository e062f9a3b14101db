"""Odd text files of a data folder are one line each: object.toml, cases.csv, tables to convert."""

import os
from pathlib import Path

import numpy as np
import pytest

from dataset import texts
from dataset.cases import Place, read_place, read_table
from dataset.catalog import SETTINGS, read_settings
from dataset.texts import read_text
from errors import UserError
from preparation.convert_tables import read_csv

NOT_TEXT = {
    "binary": (bytes(range(128, 256)), r"is not text in UTF-8 \(byte 0\)"),
    "zero bytes": (b'noun = "a\0b"\n', r"is not text \(it has zero bytes\)"),
    "UTF-16": ('noun = "a"'.encode("utf-16"), r"is text in UTF-16; save it as UTF-8$"),
    "UTF-32": ('noun = "a"'.encode("utf-32-le"), r"is not text \(it has zero bytes\)"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(99), r"is not text in UTF-8 \(byte 0\)"),
}
SETTING_FAULTS = {
    "deep": ("masks = " + "[" * 20_000, r"cannot be read as TOML \(maximum recursion"),
    "deep tables": ("a = " + "{a=" * 20_000, r"cannot be read as TOML \(maximum recursion"),
    "a number without end": ("masks = " + "9" * 5_000, r"cannot be read as TOML \(.*4300 digits"),
    "no such day": ("masks = 2025-13-45", r"cannot be read as TOML \("),
    "list": ('noun = ["a"]', r"noun = \['a'\]; allowed is text in quotes"),
    "number": ("mask_rule = 1", r"mask_rule = 1; allowed is text"),
    "time": ("noun = 2025-01-01", r"noun = datetime\.date\(2025, 1, 1\); allowed is text"),
    "table": ("[noun]\na = 1", r"noun = \{'a': 1\}; allowed is text"),
    "long": (f'noun = "{"a" * 100_000}"', r"noun = 'aaa.*; allowed is text in quotes, of at most"),
    "long list": (f"masks = {[1] * 9_999}", r"masks = \[1, 1.*; allowed are true and false"),
    "long key": (f"{'a' * 9_999} = 1", r"unknown key 'aaa.*; allowed are masks, noun"),
    "two lines": ('noun = "a\\nb"', r"noun: 'a\\nb' is no noun"),
    "repetition": (
        "cases = 'a{99999999999999999999}'",
        r"cases: .* repeats too much: .*choose smaller",
    ),
    "deep pattern": (f"cases = '{'(' * 100}'", r"cases: .* is no regular expression"),
    "two cases": ("cases = '(?P<case>a)(?P<case>b)'", r"cases: .* is no regular expression"),
    "twice": ('noun = "a"\nnoun = "b"', r"cannot be read as TOML \("),
    "range": ('intensity = "5:1"', r"intensity: got '5:1'; LOW must be below HIGH"),
    "endless range": ('intensity = "0:1e999"', r"intensity: got '0:1e999'; LOW must be below"),
}
TABLE_FAULTS = {
    "a slice without end": ("file,case,slice\na.png,1," + "9" * 5_000, r"line 2: slice '999.*18 d"),
    "a negative slice": ("file,case,slice\na.png,1,-1", r"line 2: slice '-1'; allowed are whole"),
    "two columns": ("file,case,case\na.png,1,2", r"has two columns case; it has file case case"),
    "semicolons": ("file;case\na.png;1", r"has no column file case; it has file;case, allowed"),
    "a long field": ("file,case\n" + "a" * 200_000 + ",1", r"cannot be read \(field larger than"),
    "a long header": ("x" * 100_000 + "\n", r"has no column file case; it has x{200}, allowed"),
    "two cases": ("file,case\na.png,1\na.png,2", r"line 3: a\.png is listed before"),
    "no file": ("file,case\n,1", r"line 2 names no file"),
}
CSV_FAULTS = {
    "two columns": ("image,Image,label\na.png,b.png,0\n", r"has two columns image; keep one"),
    "a long name": ("image,label\n" + "a" * 5_000 + ".png,0\n", r"missing image file"),
    "a slice without end": (
        f"image,label,slice\n{Path(__file__)},0,{'9' * 5_000}\n",
        r"image of another type|slice that is no whole number",
    ),
    "more fields": ("image,label\na.png,0,x\n", r"rows have more fields than its first l"),
    "nothing": ("", r"cannot be read as CSV \(No columns"),
    "fields": ('image,label\n"a.png,0\n', r"cannot be read as CSV \("),
}


def refuse(path: Path, content: str | bytes, message: str, read) -> None:
    """Check that reading a file of this content is refused in one short line that names it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read()
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


@pytest.mark.parametrize("kind", NOT_TEXT)
def test_what_is_no_text_is_refused(tmp_path, kind):
    content, message = NOT_TEXT[kind]
    refuse(tmp_path / SETTINGS, content, message, lambda: read_settings(tmp_path / SETTINGS))
    refuse(tmp_path / "cases.csv", content, message, lambda: read_table(tmp_path))
    table = tmp_path / "table.csv"
    refuse(table, content, message, lambda: read_csv(table, None, None))


@pytest.mark.parametrize("kind", SETTING_FAULTS)
def test_odd_settings_are_one_line(tmp_path, kind):
    content, message = SETTING_FAULTS[kind]
    refuse(tmp_path / SETTINGS, content, message, lambda: read_settings(tmp_path / SETTINGS))


@pytest.mark.parametrize("kind", TABLE_FAULTS)
def test_odd_tables_of_cases_are_one_line(tmp_path, kind):
    content, message = TABLE_FAULTS[kind]
    refuse(tmp_path / "cases.csv", content, message, lambda: read_table(tmp_path))


@pytest.mark.parametrize("kind", CSV_FAULTS)
def test_odd_tables_of_images_are_one_line(tmp_path, kind):
    content, message = CSV_FAULTS[kind]
    table = tmp_path / "table.csv"
    refuse(table, content, message, lambda: read_csv(table, None, None))


@pytest.mark.parametrize("name", [SETTINGS, "cases.csv"])
def test_files_that_cannot_be_followed_are_refused(tmp_path, name):
    """They were left out without a word, or reading them never ended."""

    def read() -> object:
        return read_settings(tmp_path / name) if name == SETTINGS else read_table(tmp_path)

    path = tmp_path / name
    read()  # absent
    for make, message in (
        (lambda: path.symlink_to("nowhere"), r"cannot be read \(No such file or directory\)"),
        (lambda: path.symlink_to(name), r"cannot be read \(Too many levels of symbolic links\)"),
        (lambda: os.mkfifo(path), r"is not a regular file; fix it or remove it"),
    ):
        make()
        with pytest.raises(UserError, match=message):
            read()
        path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"is not a regular file; fix it or remove it"):
        read()


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, texts.MOST_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(UserError, match=r"has 67,108,865 bytes, of at most 67,108,864; a form"):
        read_text(path, "a form")


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / SETTINGS).write_text('noun = "a"', encoding="utf-8-sig")
    assert read_settings(tmp_path / SETTINGS) == {"noun": "a"}
    (tmp_path / "cases.csv").write_text("file,case\nx.png,7\n", encoding="utf-8-sig")
    assert read_table(tmp_path).by_name == {"x.png": Place("7")}


def test_slice_numbers_fit_into_64_bit():
    assert read_place("case1_" + "9" * 18).slice == 10**18 - 1
    assert np.array([10**18 - 1]).dtype == np.int64
    assert read_place("case1_" + "9" * 19) == Place("case1", None)

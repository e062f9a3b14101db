"""Pipes, circles of links and odd content where a run reads files of an earlier one: one line."""

import argparse
import os

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dataset.files import opened
from dataset.patterns import case_pattern
from errors import UserError
from mvfa.embedding import drawn
from mvfa.run_files import load_metrics, read_scores
from mvfa.state_file import KEY, read_state
from prediction.records import line_of, parsed, records
from preparation.ledger import RECORD, Ledger


def pictures(folder):
    """Read the pictures of a run of which one is the special file."""
    names = {"panel": "1.jpg", "image": "1-image.png", "mask": "1-mask.png"}
    for name in names.values():
        Image.new("L", (4, 4)).save(folder / "pictures" / name)
    entry = {kind: f"pictures/{name}" for kind, name in {**names, "map": "1-map.png"}.items()}
    if not drawn(folder, {"pictures": [entry]}):
        raise UserError("left out")


def opened_image(folder):
    with opened(folder / "image.png"):
        pass


READERS = {  # the special file's place below a folder, and what reads it
    "a picture": ("pictures/1-map.png", pictures),
    "an image": ("image.png", opened_image),
    "metrics.json": ("metrics.json", load_metrics),
    "scores.csv": ("scores.csv", read_scores),
    "a state": ("x.state", lambda folder: read_state(folder / "x.state")),
    "a record of downloads": (RECORD, Ledger),
    "a log of predict.py": ("rows.jsonl", lambda folder: list(records(folder))),
}
MAY_BE_ABSENT = ("metrics.json", "a record of downloads", "a log of predict.py")
MAKERS = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a circle": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("reader", READERS)
def test_special_files_are_one_line(tmp_path, reader, kind):
    name, read = READERS[reader]
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    MAKERS[kind](place)
    if kind == "a circle" and reader in MAY_BE_ABSENT:
        read(tmp_path)
        return
    with pytest.raises(UserError) as said:
        read(tmp_path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_state_of_other_numbers_is_refused(tmp_path, dtype):
    about = '{"format": 1, "values": {}, "sha256": ""}'
    save_file({"a": torch.ones(2).to(dtype)}, tmp_path / "x.state", metadata={KEY: about})
    with pytest.raises(UserError, match=r"x.state cannot be continued"):
        read_state(tmp_path / "x.state")


def test_a_name_that_no_file_has_is_no_record():
    for name, known in (("caf\udce9.png", True), ("a\ud800.png", False)):
        line = line_of({"name": name, "error": "e"})
        assert (parsed(line) is not None) == known


@pytest.mark.parametrize("text", [r"(?P<case>a{e<=3})", r"(?P<case>(?:ab){i}).*"])
def test_fuzzy_patterns_of_cases_are_refused(text):
    with pytest.raises(Exception, match="is no regular expression"):
        case_pattern(text)


@pytest.mark.parametrize(
    "text",
    [r"(?P<case>a{999999999})", r"(?P<case>(a{,999}){999})", "(?P<case>a{" + "9" * 900 + "})"],
)
def test_patterns_of_cases_that_fill_the_memory_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="repeats too much"):
        case_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        r"(?P<case>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_(?P<slice>\d{1,4})",
        r"(?P<case>\d{8})_(?P<slice>\d{3,})x{0}",
    ],
)
def test_plain_repetitions_of_cases_are_allowed(text):
    assert case_pattern(text) == text

"""Checkpoints describe themselves, refuse what they were not made for, and are never lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from errors import UserError
from mvfa import checkpoint
from mvfa.state_file import read_state
from tests.conftest import released_form
from tests.image_sets import drawn_method
from tests.methods import load_mvfa
from tests.script_runs import ROOT, Runs


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def test_adapters_come_back_to_the_bit(tiny, tmp_path):
    first = drawn_method(tiny, seed=1)
    path = tmp_path / "deep" / "adapters.pth"
    checkpoint.save(path, first.state(), {"object": "Brain"})
    second = drawn_method(tiny, seed=2)
    loaded = load_mvfa(path)
    checkpoint.apply(second, loaded)
    assert loaded.about["object"] == "Brain"
    for head in ("seg", "det"):
        pairs = zip(first.groups()[head], second.groups()[head], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_equal_adapters_are_equal_files(tiny, tmp_path):
    """Whatever the name of the file."""
    adapters = drawn_method(tiny).state()
    for name in ("one.pth", "two.pth"):
        checkpoint.save(tmp_path / name, adapters, {})
        assert load_mvfa(tmp_path / name).adapters.keys() == adapters.keys()
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint .*; train it first, or name another file"),
        (
            b"broken",
            r"is not a readable checkpoint \(it is neither .*\); train it again or copy it again",
        ),
        ({"seg_adapters": {}}, "is no MVFA checkpoint: it needs the keys seg_adapters and det_"),
        ([1, 2], r"is not a readable checkpoint \(it holds no groups of tensors\)"),
        ({"seg_adapters": {}, "det_adapters": {}, "about": 5}, "its description is not a dict"),
        ({"seg_adapters": {}, "det_adapters": {}, "about": {"format": 99}}, "format 99, this pro"),
        ({"seg_adapters": {}, "det_adapters": {}, "about": {"format": "1"}}, "format '1', this p"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_mvfa(path)


def test_matrices_of_another_model_are_refused_whole(tiny, tmp_path):
    """Nothing is changed, not even by the matrices that fit."""
    method = drawn_method(tiny)
    adapters = method.state()
    changed = {name: value + 1 for name, value in adapters["seg_adapters"].items()}
    wrong = {"seg_adapters": changed, "det_adapters": {"0.fc1.0.weight": torch.zeros(2, 2)}}
    checkpoint.save(tmp_path / "wrong.pth", wrong, {})
    with pytest.raises(UserError, match=r"the det adapters of .*wrong\.pth do not fit"):
        checkpoint.apply(method, load_mvfa(tmp_path / "wrong.pth"))
    after = method.state()
    for name, value in adapters["seg_adapters"].items():
        assert torch.equal(value, after["seg_adapters"][name])


def test_a_checkpoint_describes_itself(runs):
    runs("train_few", "Brain", "--epoch", 1)
    content = torch.load(runs.checkpoints / "Brain-2shot.pth", weights_only=True)
    about = content["about"]
    assert set(content) == {"seg_adapters", "det_adapters", "about"}
    assert about["object"] == "Brain"
    assert about["shot"] == 2
    assert len(about["shots"]["normal"]) == 2
    assert about["recipe"]["keep"] == released_form().keep == 0.8
    assert {"seed", "epoch", "versions", "weights", "commit", "options"} <= set(about)


def test_a_checkpoint_of_something_else_is_refused(runs, tmp_path):
    runs("train_few", "Brain", "--epoch", 1)
    own = runs.checkpoints / "Brain-2shot.pth"
    with pytest.raises(UserError, match=r"no checkpoint .*Chest-2shot.pth; train it first"):
        runs("test_few", "Chest")
    shutil.copy(own, runs.checkpoints / "Chest-2shot.pth")
    with pytest.raises(UserError, match="was made with object = Brain, this run needs Chest"):
        runs("test_few", "Chest")
    with pytest.raises(UserError, match=r"was made with recipe keep = 0.8, this run needs 0.7"):
        runs("test_few", "Brain", "--keep", "0.7")
    runs("test_few", "Chest", "--ckpt", own)
    with pytest.raises(UserError, match=r"no checkpoint .*nowhere.pth"):
        runs("test_few", "Brain", "--ckpt", tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="do not fit"):
        runs("test_few", "Brain", "--ckpt", own, "--features_list", 1, 2, 3)


def test_a_checkpoint_of_another_image_size_is_refused(runs, capsys):
    runs("train_few", "Brain", "--epoch", 1)
    own = runs.checkpoints / "Brain-2shot.pth"
    size = torch.load(own, weights_only=True)["about"]["img_size"]
    other = ["--img_size", size + 8]
    with pytest.raises(
        UserError, match=f"was made with img_size = {size}, this run needs {size + 8};"
    ):
        runs("test_few", "Brain", *other)
    capsys.readouterr()
    runs("test_few", "Brain", *other, "--ckpt", own)
    remark = (
        f"was made with img_size = {size}, this run needs {size + 8}; it is used because --ckpt"
    )
    assert capsys.readouterr().err.count(remark) == 1


def test_a_checkpoint_that_names_no_image_size_is_taken(runs, capsys):
    """Older ones do not."""
    runs("train_few", "Brain", "--epoch", 1)
    own = runs.checkpoints / "Brain-2shot.pth"
    content = torch.load(own, weights_only=True)
    older = {k: v for k, v in content["about"].items() if k not in ("img_size", "sha256", "ended")}
    torch.save(content | {"about": older}, own)
    capsys.readouterr()
    runs("test_few", "Brain")
    assert "was made with" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "name"), [("train_few", "Brain-2shot"), ("train_zero", "Brain")]
)
def test_equal_commands_write_equal_files(runs, monkeypatch, script, name):
    """Whichever process writes them."""
    written = []
    for process in (101, 102):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        runs(script, "Brain", "--epoch", 1)
        path = runs.checkpoints / f"{name}.pth"
        written.append(path.read_bytes())
        path.unlink()
    assert written[0] == written[1]


def test_adapters_of_other_shots_are_refused(runs, tmp_path, demo_root):
    runs("train_few", "Chest", "--epoch", 1)
    lists = tmp_path / "lists" / "Chest"
    lists.mkdir(parents=True)
    (lists / "2-shot.txt").write_text(
        "n-0: 000.png 001.png\na-0: 000.png 001.png\nn-1: 002.png 003.png\na-1: 002.png 003.png"
    )
    taken = (demo_root / "fewshot_seed" / "Chest" / "2-shot.txt").read_text()
    draw = 1 if "000.png" in taken else 0
    more = ["--fewshot_path", tmp_path / "lists", "--iterate", draw]
    with pytest.raises(UserError, match="was made with shots normal = "):
        runs("test_few", "Chest", *more)
    runs("test_few", "Chest", *more, "--ckpt", runs.checkpoints / "Chest-2shot.pth")


def test_the_authors_files_load(runs):
    """Two keys, `<obj>.pth`, for few- and for zero-shot."""
    runs("train_few", "Brain", "--epoch", 1)
    expected = runs("test_few", "Brain")
    authors = runs.authors_file("Brain.pth")
    (runs.checkpoints / "Brain-2shot.pth").unlink()
    torch.testing.assert_close(runs("test_few", "Brain").scores, expected.scores)
    runs("test_zero", "Brain")
    runs("train_few", "Brain", "--init", authors, "--epoch", 1)


def test_the_authors_files_are_never_replaced(runs):
    runs("train_few", "Brain", "--epoch", 1)
    authors = runs.authors_file("Brain.pth")
    before = authors.read_bytes()
    refusal = r"Brain\.pth was not written by this program and would be lost; move it"
    with pytest.raises(UserError, match=refusal):
        runs("train_zero", "Brain", "--epoch", 1)
    assert authors.read_bytes() == before
    runs("train_few", "Brain", "--epoch", 1)  # an own file is replaced


def test_a_run_says_which_adapters_it_takes(runs, capsys):
    """Its own, else the authors' <obj>.pth, else the reproducibility study's <obj>_<K>.pth."""
    runs("train_few", "Brain", "--epoch", 1)
    own = runs.checkpoints / "Brain-2shot.pth"
    authors = runs.authors_file("Brain.pth")
    study = runs.authors_file("Brain_2.pth")
    for path, others in ((own, 2), (authors, 1), (study, 0)):
        capsys.readouterr()
        runs("test_few", "Brain")
        errors = capsys.readouterr().err.splitlines()
        notes = [line for line in errors if "note: adapters of" in line]
        assert len(notes) == bool(others)
        assert not others or f"note: adapters of {path}; not taken: " in notes[0]
        assert runs.metrics("test_few")["adapters"]["file"] == str(path)
        path.unlink()


def test_interrupt_leaves_no_part(runs):
    # a job in the background starts with the signal ignored, and so do its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = runs.flags("train_few", "Brain", "--epoch", 500)
    process = subprocess.Popen(
        [sys.executable, "train_few.py", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    state = runs.checkpoints / "Brain-2shot.state"
    deadline = time.monotonic() + 90
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; files written so far are whole" in errors
    assert "Traceback" not in errors
    assert list(runs.checkpoints.iterdir()) == [state]
    read_state(state)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, None),  # the authors' files
        ({"object": "Brain", "recipe": {"keep": 0.8, "mix": 0.1}}, None),
        ({"object": "Brain", "recipe": {"keep": 0.8}}, "recipe mix = None, this run needs 0.1"),
        (
            {"recipe": {"keep": 0.8, "mix": 0.1, "new": 1}},
            "recipe new = 1, this run needs None",
        ),
        ({"object": "Chest", "recipe": {"keep": 0.7}}, "object = Chest, this run needs Brain"),
    ],
)
def test_a_description_must_agree_in_every_entry(about, message):
    """An entry of the recipe that only one of the two has is a difference, too."""
    found = checkpoint.Checkpoint({}, about, Path("x.pth"))
    expected = {"object": "Brain", "recipe": {"keep": 0.8, "mix": 0.1}}
    different = checkpoint.difference(found, expected)
    assert different == (f"x.pth was made with {message}" if message else "")

"""reproduce.py with files of runs that are cut, changed, lost or a stranger's; bugs leave a log."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import report.jobs
import reproduce
import test_few
from CLIP.hashing import sha256
from mvfa import checkpoint
from mvfa.run_files import sealed
from report.study import DONE, FAILED
from tests.methods import load_mvfa


def flags(root: Path, demo_root: Path, weights: Path, *more: object) -> list[str]:
    """Return the flags of a study of one training and its test."""
    values = ["table1", "--objects", "Brain", "--root", root, "--img_size", 60, "--epoch", 1]
    values += ["--pictures", 2, "--data_path", demo_root / "data", "--clip_path", weights]
    values += ["--fewshot_path", demo_root / "fewshot_seed", "--cache_dir", root / "cache"]
    return [str(value) for value in [*values, *more]]


@pytest.fixture(scope="module")
def whole(demo_root, demo_weights, tmp_path_factory) -> Path:
    """Make a study; return its folder."""
    root = tmp_path_factory.mktemp("study") / "whole"
    reproduce.main(flags(root, demo_root, demo_weights))
    return root


@pytest.fixture
def study(whole, demo_root, demo_weights, tmp_path):
    """Return a copy of the study and a function that gives its command again."""
    root = tmp_path / "copy"
    shutil.copytree(whole, root)
    return root, lambda *more: reproduce.main(flags(root, demo_root, demo_weights, *more))


def only(root: Path, pattern: str) -> Path:
    """Return the one file of a study with such a name."""
    (path,) = (root / "runs").glob(pattern)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_text("{}")


def remove(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    """Change one digit after a decimal point."""
    text = path.read_text()
    place = text.index("0.", len(text) // 2) + 3
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def change_adapters(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_runs_whose_files_are_whole_are_kept(study, capsys):
    root, again = study
    before = {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("*")}
    assert again().cells[0].state == DONE
    assert {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("*")} == before
    assert "run again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.json", cut),
        ("metrics.json", empty),
        ("metrics.json", flip),
        ("scores.csv", cut),
        ("curves.json", flip),
    ],
)
def test_a_test_whose_files_are_not_whole_is_run_again(whole, study, capsys, name, damage):
    root, again = study
    path = only(root, f"*/test_few*/{name}")
    damage(path)
    adapters = only(root, "*/*.pth")
    trained = adapters.stat().st_mtime_ns
    assert again().cells[0].state == DONE
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "run again" in line]
    assert said.startswith(f"note: {path} ")
    assert adapters.stat().st_mtime_ns == trained
    check_equal(root, whole)


@pytest.mark.parametrize("damage", [remove, change_adapters])
@pytest.mark.parametrize("cut_too", [False, True])
def test_a_lost_checkpoint_is_trained_again(whole, study, capsys, damage, cut_too):
    root, again = study
    path = only(root, "*/*.pth")
    damage(path)
    only(root, "*/test_few*/metrics.json").unlink()
    if cut_too:
        cut(only(root, "*/train/metrics.json"))
    assert again().cells[0].state == DONE
    said = f"note: {path} is missing, or not what the training has written; it is run again"
    assert cut_too or said in capsys.readouterr().err
    check_equal(root, whole)


def test_a_checkpoint_that_no_test_needs_is_not_trained_again(study):
    root, again = study
    only(root, "*/*.pth").unlink()
    assert again().cells[0].state == DONE
    assert not list((root / "runs").glob("*/*.pth"))


def test_a_full_disk_is_made_good_later(study, whole, monkeypatch):
    """A training whose checkpoint had no room has results, and is trained again."""
    root, again = study
    for name in ("train", "test_few*"):
        only(root, f"*/{name}/metrics.json").unlink()
    only(root, "*/*.pth").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full_disk)
        (cell,) = again().cells
    assert cell.state == FAILED
    assert "No space left" in cell.reason
    assert again().cells[0].state == DONE
    check_equal(root, whole)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_test_of_other_adapters_is_run_again(study):
    """A training that is repeated elsewhere may round differently."""
    root, again = study
    metrics = only(root, "*/train/metrics.json")
    path = only(root, "*/*.pth")
    found = load_mvfa(path)
    adapters = {
        head: {name: value + 1e-3 for name, value in matrices.items()}
        for head, matrices in found.adapters.items()
    }
    checkpoint.save(path, adapters, found.about)
    content = {k: v for k, v in json.loads(metrics.read_text()).items() if k != "sha256"}
    content["adapters"]["sha256"] = sha256(path)
    metrics.write_text(json.dumps(sealed(content, metrics.parent)))
    assert again().cells[0].metrics["adapters"]["sha256"] == sha256(path)


def test_a_training_whose_results_are_not_whole_is_run_again(whole, study):
    root, again = study
    cut(only(root, "*/train/metrics.json"))
    assert again().cells[0].state == DONE
    check_equal(root, whole)


def check_equal(root: Path, whole: Path) -> None:
    """Check that two studies have the same page, tables and adapters."""
    for name in ("report/index.html", "report/tables.md"):
        assert (root / name).read_bytes() == (whole / name).read_bytes()
    one, other = (only(folder, "*/test_few*/scores.csv") for folder in (root, whole))
    assert one.read_bytes() == other.read_bytes()
    first, second = (load_mvfa(only(folder, "*/*.pth")).adapters for folder in (root, whole))
    for head, matrices in first.items():
        assert all(torch.equal(matrices[name], second[head][name]) for name in second[head])


def test_where_a_run_cannot_be_made_again_the_page_names_its_file(study, monkeypatch):
    root, again = study
    path = only(root, "*/test_few*/metrics.json")
    cut(path)
    monkeypatch.setattr(report.jobs, "missing_input", lambda *_: "no images of Brain")
    (cell,) = again().cells
    assert cell.state == FAILED
    assert cell.reason == f"{path} cannot be read as JSON; remove it and run again"
    assert str(path) in (root / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("path", "seal"),
    [
        ("../../../../secret.png", True),
        ("pictures/../../../../../secret-map.png", True),
        ("pictures/../../../../../secret-map.png", False),
    ],
)
def test_a_picture_elsewhere_is_never_shown(study, tmp_path, capsys, path, seal):
    """Whoever made the file could make its digest, too."""
    root, again = study
    for name in ("secret.png", "secret-map.png"):
        Image.new("L", (60, 60), 77).save(tmp_path / name)
    metrics = only(root, "*/test_few*/metrics.json")
    content = json.loads(metrics.read_text())
    content["pictures"][0]["map"] = path
    for key in ("sha256", "files"):
        del content[key]
    metrics.write_text(json.dumps(sealed(content, metrics.parent) if seal else content))
    assert again().cells[0].state == DONE
    assert (root / "report" / "index.html").read_text().count('<figure class="picture"') == 1
    assert "note: a picture is left out: " in capsys.readouterr().err


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_picture_behind_a_link_is_left_out(study, tmp_path, capsys, linked):
    root, again = study
    pictures = only(root, "*/test_few*/pictures")
    if linked == "folder":
        pictures.rename(tmp_path / "elsewhere")
        pictures.symlink_to(tmp_path / "elsewhere")
    else:
        (first, *_) = sorted(pictures.glob("*-map.png"))
        first.rename(tmp_path / "elsewhere.png")
        first.symlink_to(tmp_path / "elsewhere.png")
    again()
    shown = (root / "report" / "index.html").read_text().count('<figure class="picture"')
    assert shown == (0 if linked == "folder" else 1)
    assert "is not in the run's folder of pictures" in capsys.readouterr().err


def test_a_bug_leaves_its_traceback_in_a_log(study, monkeypatch, capsys):
    root, again = study
    metrics = only(root, "*/test_few*/metrics.json")
    metrics.unlink()

    def broken(_: list[str]) -> None:
        raise ValueError("one line\nand another")

    with monkeypatch.context() as patch:
        patch.setattr(test_few, "main", broken)
        (cell,) = again().cells
    log = metrics.parent / "error.log"
    assert cell.reason == f"ValueError: one line (traceback in {log})"
    assert "in broken\n" in log.read_text()
    assert f"traceback in {log}" in capsys.readouterr().err
    assert again().cells[0].state == DONE
    assert not log.exists()

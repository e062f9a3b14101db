"""Every command of the README and of docs/ exists and takes its flags; links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

import prepare_data
from mvfa.calibrate_options import parse as parse_calibrate
from mvfa.options import parse
from prediction.options import build_parser as build_predict
from report.arguments import parse as parse_reproduce

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("ckpt", "data", "CLIP/ckpt")]
IN_BLOCK = re.compile(r"^ {4,}(?:torchrun [^\n]*? |python )(\w+)\.py([^\n]*)$", re.MULTILINE)
IN_LINE = re.compile(r"`python (\w+)\.py([^`]*)`")
SCRIPTS = ("train_few", "test_few", "train_zero", "test_zero")


def commands() -> list[tuple[str, str, str]]:
    """Return page, script and flags of every command that is shown."""
    shown = []
    for page in PAGES:
        text = page.read_text()
        for pattern in (IN_BLOCK, IN_LINE):
            shown += [(page.name, script, flags) for script, flags in pattern.findall(text)]
    return shown


def targets() -> list[str]:
    """Return the targets of make that are shown."""
    return re.findall(r"^ {4,}make (\w+)$", README, re.MULTILINE)


def test_commands_are_found():
    scripts = {script for _, script, _ in commands()}
    assert {*SCRIPTS, "reproduce", "prepare_data", "calibrate", "predict"} <= scripts
    assert {"demo", "test"} <= set(targets())


@pytest.mark.parametrize(("page", "script", "flags"), commands())
def test_scripts_take_their_flags(page, script, flags):
    assert (ROOT / f"{script}.py").is_file(), page
    words = shlex.split(flags)
    if script == "reproduce":
        assert parse_reproduce(words).options.tables
    elif script == "prepare_data" and len(words) > 1 and words[0] != "COMMAND":
        assert prepare_data.parse(words)
    elif script == "calibrate":
        assert parse_calibrate(words).obj in flags
    elif script == "predict" and "-i" in words:
        assert build_predict().parse_args(words).out
    elif script in SCRIPTS:
        assert parse(script, words).obj in flags


@pytest.mark.parametrize("target", targets())
def test_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_hold(page):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_of_the_root_and_every_package_is_named():
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    for path in [*ROOT.glob("*.py"), *packages]:
        assert path.name in README, path.name


def test_it_is_short():
    assert len(README.splitlines()) <= 150

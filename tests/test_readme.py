"""Every command of the README exists and takes the flags it shows; its demo table is what the demo prints."""

import re
from pathlib import Path

import pytest

import demo
from mvfa.options import parse
from report.arguments import parse as parse_reproduce

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(
    r"^ {4,}(?:torchrun [^\n]*? |python )(\w+)\.py([^\n]*)$", README, re.MULTILINE
)
COMMANDS += re.findall(r"`python (\w+)\.py([^`]*)`", README)
TARGETS = re.findall(r"^ {4,}make (\w+)$", README, re.MULTILINE)


def test_commands_are_found():
    assert len(COMMANDS) >= 6
    assert {"demo", "test"} <= set(TARGETS)


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_scripts_take_their_flags(script, flags):
    assert (ROOT / f"{script}.py").is_file()
    if script == "reproduce":
        assert parse_reproduce(flags.split(), demo.MODEL).wanted.tables
    else:
        assert parse(script, flags.split()).obj in flags


@pytest.mark.parametrize("target", TARGETS)
def test_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_to_files_hold():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_file_is_named():
    for path in [*ROOT.glob("*.py"), *(p.parent for p in ROOT.glob("*/__init__.py"))]:
        assert path.name in README, path.name

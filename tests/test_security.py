"""The tests that SECURITY.md names exist, and its counts are those of the harnesses."""

import re

import pytest

from tests.faults.kills import SHARES
from tests.fuzz.readers import TARGETS
from tests.script_runs import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


def test_every_promise_has_a_test():
    tables = TEXT.partition("## Counts")[0].splitlines()
    rows = [line for line in tables if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert len(promises) > 20
    for row in promises:
        assert "`tests/" in row, row


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_tests_that_are_named_exist(path, name):
    content = (ROOT / path).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in content


def test_every_reader_and_every_command_is_counted():
    for name in (*TARGETS, *SHARES):
        assert f"| {name} |" in TEXT

"""A package that is missing is named with the command that installs it."""

import math

import pytest

from dataset.extras import need
from errors import UserError


def test_a_package_that_is_there_is_returned():
    assert need("math", "scans") is math
    assert need("os.path", "scans").join("a", "b") == "a/b"


def test_a_missing_package_is_one_line_with_the_command():
    with pytest.raises(UserError) as error:
        need("no_such_package_of_ours", "scans")
    assert "needs the package no_such_package_of_ours" in str(error.value)
    assert str(error.value).endswith("run pip install -r requirements-scans.txt")
    assert "\n" not in str(error.value)

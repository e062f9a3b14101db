"""Versions name what numbers depend on."""

import re
import subprocess

import numpy as np
import torch

from mvfa import versions


def test_versions_are_complete():
    found = versions.versions()
    assert found["torch"] == torch.__version__
    packages = {"torch", "torchvision", "numpy", "pillow"}
    assert {"mvfa", "python", "commit"} | packages == set(found)


def test_what_is_not_installed_has_no_version():
    assert versions.installed("numpy") == np.__version__
    assert versions.installed("no-such-package") is None


def test_the_commit_is_known_or_none(monkeypatch):
    versions.commit.cache_clear()
    commit = versions.commit()
    assert commit is None or re.fullmatch("[0-9a-f]{40}", commit)

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    versions.commit.cache_clear()
    assert versions.commit() is None
    versions.commit.cache_clear()

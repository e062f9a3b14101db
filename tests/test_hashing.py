"""Weight files are hashed once, in the background, and again when they change."""

import hashlib
import os
import time

import pytest

from CLIP import hashing
from CLIP.hashing import file_hash, hash_ahead, once
from CLIP.weights import DTYPES
from errors import UserError
from mvfa.defaults import PRECISIONS


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(bytes(range(256)) * 5)
    return path


@pytest.mark.parametrize("content", [bytes(range(256)) * 5, b""])
def test_the_hash_is_that_of_the_content(path, content):
    path.write_bytes(content)
    assert file_hash(path) == hashlib.sha256(content).hexdigest()


def test_a_file_is_hashed_once_until_it_changes(path, monkeypatch):
    read = []
    monkeypatch.setattr(hashing, "sha256", lambda path: read.append(path) or str(len(read)))
    assert hash_ahead(path).result() == file_hash(path) == file_hash(path) == "1"
    os.utime(path, ns=(0, 0))
    assert file_hash(path) == "2"


def test_files_are_hashed_one_after_another(path):
    running = []
    most = []

    def work() -> str:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return "x"

    futures = [once(path, f"kind {number}", work) for number in range(4)]
    assert [future.result() for future in futures] == ["x"] * 4
    assert most == [1, 1, 1, 1]
    assert once(path, "kind 0", work) is futures[0]


def test_an_unreadable_file_is_refused_where_its_hash_is_needed(path, monkeypatch):
    def broken(_) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashing, "sha256", broken)
    hash_ahead(path)
    with pytest.raises(UserError, match=r"weights\.pt cannot be read \(Input/output error\)"):
        file_hash(path)


def test_every_precision_has_its_type():
    assert tuple(DTYPES) == PRECISIONS

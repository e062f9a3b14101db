"""Weight files are hashed once, in the background, and again when they change."""

import hashlib
import os

import pytest

import weight_files
from CLIP.weights import DTYPES
from errors import UserError
from options import PRECISIONS
from weight_files import hash_ahead, weight_hash


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(bytes(range(256)) * 5)
    return path


def test_a_file_is_hashed_slice_by_slice(path, monkeypatch):
    monkeypatch.setattr(weight_files, "SLICE", 100)
    assert weight_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_hashed_once_until_it_changes(path, monkeypatch):
    read = []
    monkeypatch.setattr(weight_files, "sha256", lambda path: read.append(path) or str(len(read)))
    assert hash_ahead(path).result() == weight_hash(path) == weight_hash(path) == "1"
    os.utime(path, ns=(0, 0))
    assert weight_hash(path) == "2"


def test_a_file_that_cannot_be_read_is_told_where_the_hash_is_needed(path, monkeypatch):
    def broken(_) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(weight_files, "sha256", broken)
    hash_ahead(path)
    with pytest.raises(UserError, match=r"weights\.pt cannot be read \(Input/output error\)"):
        weight_hash(path)


def test_every_precision_has_its_type():
    assert tuple(DTYPES) == PRECISIONS

"""Text features are encoded once; what does not fit is encoded again; the key says it all."""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch

from CLIP.weights import create_model
from dataset.catalog import object_info
from mvfa import own_files, text_cache
from mvfa.text_cache import cached_text_by_noun, cached_text_features, read_entry, text_key
from tests.archives import rewritten
from tests.troubles import largest_file

TEXT = torch.nn.functional.normalize(torch.arange(1.0, 129.0).view(64, 2), dim=0)


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Replace the encoding of sentences; list the nouns that were encoded."""
    nouns = []

    def encode(clip, noun: str) -> torch.Tensor:  # noqa: ARG001
        nouns.append(noun)
        return TEXT

    monkeypatch.setattr(text_cache, "text_features", encode)
    return nouns


def test_text_is_encoded_once(tiny, encoded, tmp_path):
    for _ in range(3):
        torch.testing.assert_close(cached_text_features(tiny, "Brain", "fp32", tmp_path), TEXT)
    assert encoded == ["Brain"]
    torch.testing.assert_close(cached_text_features(tiny, "Brain", "fp32", None), TEXT)
    assert encoded == ["Brain", "Brain"]


@pytest.mark.usefixtures("encoded")
def test_equal_entries_are_equal_files(tiny, tmp_path, monkeypatch):
    """Whichever process has written them."""
    written = []
    for process in (101, 102):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        cached_text_features(tiny, "Brain", "fp32", tmp_path / str(process))
        (path,) = (tmp_path / str(process)).iterdir()
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_each_noun_is_encoded_once(tiny, encoded, tmp_path):
    names = ("Retina_RESC", "Brain", "Retina_OCT2017")
    text = cached_text_by_noun(tiny, map(object_info, names), "fp32", tmp_path)
    assert list(text) == encoded
    assert set(text) == {object_info(name).noun for name in names}


def whole(key: str, features: torch.Tensor = TEXT) -> bytes:
    """Return the bytes of an entry."""
    return own_files.encode({"text": {"features": features}}, {"key": key})


def plain(features: torch.Tensor, **about: str) -> bytes:
    """Return an entry without a digest."""
    data = io.BytesIO()
    torch.save({"text": {"features": features}, "about": about}, data)
    return data.getvalue()


BROKEN = {
    "empty": lambda _: b"",
    "text": lambda _: b"broken",
    "cut off": lambda key: whole(key)[:-100],
    "a changed number": lambda key: rewritten(whole(key), TEXT[3:5], TEXT[3:5] + 1e-4),
    "another key": lambda _: whole("0" * 64),
    "another shape": lambda key: whole(key, TEXT[:3]),
    "another length of its rows": lambda key: whole(key, 2 * TEXT),
    "another type": lambda key: whole(key, TEXT.half()),
    "not finite": lambda key: whole(key, TEXT * float("nan")),
    "without a digest": lambda key: plain(TEXT, key=key),
    "with another's digest": lambda key: plain(TEXT, key=key, sha256="0" * 64),
    "too large": lambda key: whole(key) + bytes(text_cache.LARGEST),
    "only a tensor": lambda _: tensor_file(TEXT),
}


def tensor_file(features: torch.Tensor) -> bytes:
    """Return the file of a tensor alone."""
    data = io.BytesIO()
    torch.save(features, data)
    return data.getvalue()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_entry_is_made_again(tiny, encoded, tmp_path, kind):
    """The folder may be shared: an entry is data from a stranger."""
    cached_text_features(tiny, "Brain", "fp32", tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(BROKEN[kind](path.stem))
    assert read_entry(path, path.stem, 64) is None
    torch.testing.assert_close(cached_text_features(tiny, "Brain", "fp32", tmp_path), TEXT)
    assert path.read_bytes() == good
    assert encoded == ["Brain", "Brain"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_an_entry_that_is_no_file_costs_only_time(tiny, encoded, tmp_path, make):
    cached_text_features(tiny, "Brain", "fp32", tmp_path)
    (path,) = tmp_path.iterdir()
    path.unlink()
    make(path)
    for _ in range(2):
        torch.testing.assert_close(cached_text_features(tiny, "Brain", "fp32", tmp_path), TEXT)
    assert set(encoded) == {"Brain"}


def test_an_entry_is_read_only_at_its_width(tmp_path):
    (tmp_path / "entry.pt").write_bytes(whole("k"))
    torch.testing.assert_close(read_entry(tmp_path / "entry.pt", "k", 64), TEXT)
    assert read_entry(tmp_path / "entry.pt", "k", 65) is None
    assert read_entry(tmp_path / "missing.pt", "k", 64) is None


def test_the_key_depends_on_everything():
    settings = {
        "weights": "a",
        "activation": "gelu",
        "precision": "fp32",
        "sentences": [["a"], ["b"]],
    }
    changes = [
        {},
        {"weights": "b"},
        {"activation": "quickgelu"},
        {"precision": "bf16"},
        {"sentences": [["a"], ["c"]]},
    ]
    assert len({text_key(**(settings | change)) for change in changes}) == len(changes)


def test_other_settings_are_other_entries(tiny_path, encoded, tmp_path):
    """The noun, the precision, the activation and the weights, but not where these lie."""
    plain = create_model(None, tiny_path, image_size=32)
    quick = create_model(None, tiny_path, image_size=32, activation="quickgelu")
    cached_text_features(plain, "Brain", "fp32", tmp_path / "cache")
    cached_text_features(plain, "Chest", "fp32", tmp_path / "cache")
    cached_text_features(plain, "Brain", "bf16", tmp_path / "cache")
    cached_text_features(quick, "Brain", "fp32", tmp_path / "cache")
    copy = tmp_path / "copy.pt"
    shutil.copy(tiny_path, copy)
    cached_text_features(
        create_model(None, copy, image_size=32), "Brain", "fp32", tmp_path / "cache"
    )
    assert len(encoded) == 4
    changed = {name: value + 1 for name, value in torch.load(copy).items()}
    torch.save(changed, tmp_path / "other.pt")
    other = create_model(None, tmp_path / "other.pt", image_size=32)
    cached_text_features(other, "Brain", "fp32", tmp_path / "cache")
    assert len(encoded) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 5


@pytest.mark.usefixtures("encoded")
def test_a_full_disk_costs_only_time(tiny, tmp_path):
    with largest_file(100):
        text = cached_text_features(tiny, "Brain", "fp32", tmp_path / "cache")
    torch.testing.assert_close(text, TEXT)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_only_time(tiny, encoded, tmp_path):
    (tmp_path / "file").write_text("in the way")
    text = cached_text_features(tiny, "Brain", "fp32", tmp_path / "file")
    torch.testing.assert_close(text, TEXT)
    assert encoded == ["Brain"]

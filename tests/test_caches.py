"""What is kept is what would be worked out again; bounds hold; broken entries are made again."""

import pytest
import torch

from CLIP.adapter import MVFA
from dataset.catalog import object_info
from dataset.medical_few import evaluation_set
from mvfa import caches
from mvfa.caches import DecodedImages, allocate, divide, stored_text, text_key
from mvfa.features import FeatureLoader
from mvfa.options import default_cache

CPU = torch.device("cpu")
TEXT = torch.nn.functional.normalize(torch.arange(1.0, 9.0).view(4, 2), dim=0)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0, (0, 0)),
        (9, (0, 0)),
        (35, (0, 3)),
        (100, (0, 10)),
        (189, (0, 10)),
        (190, (1, 9)),
        (1_000, (10, 0)),
        (9_999, (10, 0)),
    ],
)
def test_a_budget_is_divided(budget, expected):
    streams, decoded = divide(budget, images=10, stream=100, image=10)
    assert (streams, decoded) == expected
    assert streams * 100 + decoded * 10 <= budget


def test_a_store_goes_to_a_file_when_memory_is_short(monkeypatch):
    monkeypatch.setattr(caches, "available_memory", lambda: 100)
    store = allocate((10, 3, 4), torch.float32, CPU)
    store.copy_(torch.arange(120.0).view(10, 3, 4))
    assert store.sum() == 119 * 60
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert allocate((10, 3, 4), torch.float32, CPU).shape == (0, 3, 4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("gigabytes", [0.0, 30e-6, 60e-6, 1.0])
def test_streams_are_the_same_whatever_is_kept(demo_root, tiny, gigabytes, workers):
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    mvfa = MVFA(tiny.visual, 64, (1, 2, 4), generator=torch.Generator().manual_seed(0))
    plain = FeatureLoader(source, mvfa, device=CPU, batch_size=3)
    kept = FeatureLoader(
        source, mvfa, device=CPU, batch_size=3, cache_gb=gigabytes, workers=workers
    )
    for order in (range(10), [7, 3, 9, 0, 1, 2, 8, 6, 5, 4]):
        for a, b in zip(plain.batches(order), kept.batches(order), strict=True):
            torch.testing.assert_close(a.stream, b.stream)
            assert torch.equal(plain.masks(a.members.tolist()), kept.masks(b.members.tolist()))


def test_decoded_images_are_read_once(demo_root):
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    decoded = DecodedImages(source, first=2, capacity=5)
    first = [decoded[i] for i in range(10)]
    for record in source.records:
        object.__setattr__(record, "name", "gone.png")
    for i in range(2, 7):
        assert torch.equal(decoded[i].image, first[i].image)
        assert decoded[i].mask == first[i].mask
    with pytest.raises(Exception, match=r"gone\.png"):
        decoded[7]


def test_text_is_made_once(tmp_path):
    calls = []

    def make() -> torch.Tensor:
        calls.append(1)
        return TEXT

    key = text_key("abc", noun="Brain", precision="fp32")
    for _ in range(3):
        torch.testing.assert_close(stored_text(tmp_path, key, 4, make), TEXT)
    assert len(calls) == 1
    stored_text(None, key, 4, make)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"broken", "shape", "norm", "kind"])
def test_a_broken_entry_is_made_again(tmp_path, content):
    path = tmp_path / "key.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"shape": TEXT[:3], "norm": 2 * TEXT, "kind": {"a": 1}}[content], path)
    torch.testing.assert_close(stored_text(tmp_path, "key", 4, lambda: TEXT), TEXT)
    torch.testing.assert_close(torch.load(path), TEXT)


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


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    torch.testing.assert_close(stored_text(tmp_path / "file", "key", 4, lambda: TEXT), TEXT)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "mvfa"

"""Where weights are packed by default, and where they cannot be."""

from contextlib import nullcontext

import pytest
import torch

from CLIP import packed
from errors import UserError
from mvfa import packing
from mvfa.distributed import World
from mvfa.environment import Environment
from mvfa.options import parse
from mvfa.packing import PackedSteps, packed_steps, packs
from tests.image_sets import drawn_adapters, drawn_method

GIGABYTES = 10**9


def packs_here(
    monkeypatch,
    *flags: str,
    device: str = "cpu",
    precision: str = "fp32",
    memory: int = 16,
    processes: int = 1,
    intel: bool = True,
    mkl: bool = True,
) -> bool:
    """Return whether a training packs on a machine of some kind; by default one that does."""
    monkeypatch.setattr(packing, "installed_memory", lambda: memory * GIGABYTES)
    monkeypatch.setattr(packed, "gains_here", lambda: intel)
    monkeypatch.setattr(packed, "available", lambda: mkl)
    env = Environment(torch.device(device), precision, 0, 8, World(0, processes))
    return packs(parse("train_few", ["--obj", "Brain", *flags]), env)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({}, True),
        ({"intel": False}, False),
        ({"mkl": False}, False),
        ({"memory": 15}, True),
        ({"memory": 14}, False),
        ({"processes": 2, "memory": 32}, True),
        ({"processes": 2, "memory": 29}, False),
        ({"device": "cuda"}, False),
        ({"precision": "bf16"}, False),
    ],
)
def test_the_default_follows_the_machine(monkeypatch, machine, expected):
    assert packs_here(monkeypatch, **machine) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--batch_size 2", False),
        ("--recipe paper", False),
        ("--recipe paper --batch_size 1", True),
        ("--compile yes", False),
        ("--pack no", False),
        ("--batch_size 2 --pack yes", True),
    ],
)
def test_the_default_follows_the_flags(monkeypatch, flags, expected):
    assert packs_here(monkeypatch, *flags.split()) == expected


def test_yes_holds_where_no_gain_was_measured(monkeypatch):
    assert packs_here(monkeypatch, "--pack", "yes", intel=False, memory=4)


@pytest.mark.parametrize(
    ("machine", "got"),
    [
        ({"device": "cuda", "precision": "fp16"}, "got cuda, fp16, with MKL"),
        ({"precision": "bf16"}, "got cpu, bf16, with MKL"),
        ({"mkl": False}, "got cpu, fp32, without MKL"),
    ],
)
def test_yes_is_refused_where_it_cannot_be(monkeypatch, machine, got):
    with pytest.raises(UserError, match=f"--pack yes needs a CPU, .*{got}; leave the flag out"):
        packs_here(monkeypatch, "--pack", "yes", **machine)


def test_yes_is_refused_with_compile(monkeypatch):
    with pytest.raises(UserError, match="no --compile"):
        packs_here(monkeypatch, "--pack", "yes", "--compile", "yes")


def test_a_run_that_does_not_pack_has_an_empty_context(tiny):
    method = drawn_method(tiny)
    env = Environment(torch.device("cpu"), "fp32", 0, 8, World())
    options = parse("train_few", ["--obj", "Brain", "--pack", "no"])
    assert isinstance(packed_steps(method, options, env), nullcontext)


@pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
def test_blocks_are_packed_within_and_plain_outside(tiny):
    """Also when it is entered again, and after an error."""
    model = drawn_adapters(tiny)
    blocks = model.visual.transformer.resblocks
    plain = list(blocks)
    steps = PackedSteps(model, 1)
    for _ in range(2):
        with steps:
            kinds = [type(block).__name__ for block in blocks]
            assert kinds == ["Block"] + ["PackedBlock"] * 3  # none before the first adapter
            tower = steps.tower
        assert list(blocks) == plain
    assert steps.tower is tower
    with pytest.raises(ZeroDivisionError), steps:
        raise ZeroDivisionError
    assert list(blocks) == plain

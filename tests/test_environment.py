"""What no flag decides follows from the device; what a flag says holds."""

import pytest
import torch

from errors import UserError
from mvfa import environment
from mvfa.environment import compile_network, set_up
from mvfa.options import parse
from tests.image_sets import drawn_adapters


def settings(monkeypatch, tmp_path, device: str, *flags: str) -> tuple:
    """Return precision, workers and test batch size of a run on a device that need not exist."""
    monkeypatch.setattr(environment, "choose_device", lambda _: torch.device(device))
    options = parse("test_few", ["--obj", "Brain", "--out", str(tmp_path / "out"), *flags])
    env = set_up(options)
    assert str(env.device) == device
    as_dict = env.as_dict()
    assert as_dict.pop("device") == device
    assert tuple(as_dict.values()) == (env.precision, env.workers, env.test_batch_size)
    return env.precision, env.workers, env.test_batch_size


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ("fp32", 0, 8)),
        ("cuda:1", ("fp16", 4, 32)),
        ("mps", ("fp32", 0, 8)),
    ],
)
def test_the_device_decides(monkeypatch, tmp_path, device, expected):
    assert settings(monkeypatch, tmp_path, device) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_flags_decide_first(monkeypatch, tmp_path, device):
    """Zero workers too."""
    flags = ["--precision", "bf16", "--workers", "0", "--test_batch_size", "3"]
    assert settings(monkeypatch, tmp_path, device, *flags) == ("bf16", 0, 3)


def test_a_device_that_cannot_be_used_is_refused(tmp_path):
    for device in ("cuda:99", "nonsense"):
        options = parse("test_few", f"--obj Brain --device {device} --out {tmp_path}".split())
        with pytest.raises(UserError, match=f"--device {device} cannot be used here; usable: cpu"):
            set_up(options)


def test_compilation_needs_a_compiler(monkeypatch, tiny, tmp_path):
    model = drawn_adapters(tiny)
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(model, "compile", lambda: pytest.fail("compiled"))
    cpu = torch.device("cpu")
    arguments = f"--obj Brain --out {tmp_path}".split()
    compile_network(model, parse("test_few", arguments), cpu)
    with pytest.raises(UserError, match=r"--compile yes needs a C\+\+ compiler on a CPU"):
        compile_network(model, parse("test_few", [*arguments, "--compile", "yes"]), cpu)

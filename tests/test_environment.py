"""What no flag decides follows from the device; what a flag says holds."""

import pytest
import torch

from errors import UserError
from mvfa import environment
from mvfa.accelerator import choose_device
from mvfa.calibrate_options import parse as parse_calibrate
from mvfa.environment import compile_network, set_up
from mvfa.locks import released
from mvfa.options import parse
from mvfa.run_files import FILES
from tests.image_sets import drawn_method


def settings(monkeypatch, tmp_path, device: str, *flags: str) -> tuple:
    """Return precision, workers and test batch size of a run on a device that need not exist."""
    monkeypatch.setattr(environment, "choose_device", lambda _: torch.device(device))
    options = parse("test_few", ["--obj", "Brain", "--out", str(tmp_path / "out"), *flags])
    with released():
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


def test_a_run_computes_float32_in_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    settings(monkeypatch, tmp_path, "cpu")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_flags_decide_first(monkeypatch, tmp_path, device):
    """Zero workers too."""
    flags = ["--precision", "bf16", "--workers", "0", "--test_batch_size", "3"]
    assert settings(monkeypatch, tmp_path, device, *flags) == ("bf16", 0, 3)


def test_a_device_that_cannot_be_used_is_refused(tmp_path):
    for device in ("cuda:99", "nonsense"):
        options = parse("test_few", f"--obj Brain --device {device} --out {tmp_path}".split())
        with pytest.raises(
            UserError, match=f"--device '{device}' cannot be used here; usable: cpu"
        ):
            set_up(options)


def test_workers_have_room_in_shared_memory(monkeypatch, tmp_path, capsys):
    """Of 64 MB, as a container has: three batches each of 32 images of 240 x 240 pixels."""
    monkeypatch.setattr(environment, "shared_memory", lambda: 64 * 2**20)
    batch = ["--test_batch_size", "64"]
    assert settings(monkeypatch, tmp_path, "cuda", "--workers", "8") == ("fp16", 4, 32)
    assert "note: /dev/shm has room for 4 of 8 workers; " in capsys.readouterr().err
    assert settings(monkeypatch, tmp_path, "cuda", *batch)[1] == 2
    assert "note: /dev/shm has room for 2 of 4 workers; " in capsys.readouterr().err
    monkeypatch.setattr(environment, "shared_memory", lambda: None)
    assert settings(monkeypatch, tmp_path, "cuda", *batch)[1] == 4
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_is_written_is_refused_first(tmp_path, name):
    (tmp_path / name).mkdir()
    options = parse("test_few", ["--obj", "Brain", "--out", str(tmp_path)])
    with pytest.raises(UserError, match=f"{name} is a folder, .* pass another --out"):
        set_up(options)


def test_so_is_one_in_the_place_of_a_checkpoint_or_a_detector(tmp_path):
    for name in ("Brain-4shot.pth", "Brain-4shot.state", "Brain-4shot.detector"):
        (tmp_path / name).mkdir()
        flags = ["--obj", "Brain", "--save_path", str(tmp_path), "--shot", "4"]
        if name.endswith("detector"):
            options = parse_calibrate(flags)
        else:
            options = parse("train_few", [*flags, "--out", str(tmp_path / "out")])
        with pytest.raises(UserError, match=f"{name} is a folder"):
            set_up(options)
        (tmp_path / name).rmdir()


@pytest.mark.parametrize("device", ["meta", "xla", "privateuseone", "hpu", "cuda:-1", "cpu:7", ""])
def test_a_device_without_numbers_is_refused(device):
    with pytest.raises(UserError, match=f"--device '{device}' cannot be used here; usable: cpu"):
        choose_device(device)


def test_compilation_needs_a_compiler(monkeypatch, tiny, tmp_path):
    method = drawn_method(tiny)
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(method, "compile_network", lambda: pytest.fail("compiled"))
    cpu = torch.device("cpu")
    arguments = f"--obj Brain --out {tmp_path}".split()
    compile_network(method, parse("test_few", arguments), cpu)
    options = parse("test_few", [*arguments, "--compile", "yes"])
    with pytest.raises(UserError, match=r"--compile yes needs a C\+\+ compiler on a CPU; install"):
        compile_network(method, options, cpu)
    cuda = torch.device("cuda")
    monkeypatch.setattr(environment, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="--compile yes needs Triton on a GPU; pip install triton"):
        compile_network(method, options, cuda)
    monkeypatch.setattr(environment, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="--compile yes needs a C compiler on a GPU; install gcc"):
        compile_network(method, options, cuda)


def test_with_compilers_the_network_is_compiled(monkeypatch, tiny, tmp_path):
    compiled = []
    method = drawn_method(tiny)
    monkeypatch.setattr(environment.shutil, "which", lambda name: name)
    monkeypatch.setattr(environment, "find_spec", lambda name: name)
    monkeypatch.setattr(method, "compile_network", lambda: compiled.append(0))
    options = parse("test_few", f"--obj Brain --out {tmp_path} --compile yes".split())
    for name in ("cpu", "cuda", "mps"):
        compile_network(method, options, torch.device(name))
    assert len(compiled) == 3

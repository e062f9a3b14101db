"""Troubles of the system are one line with what to do, and cost nothing that is finished."""

import errno
import os
import re
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import calibrate
import demo
import prepare_data
import test_few
import train_few
from mvfa.system_errors import describe
from tests.methods import load_mvfa
from tests.script_runs import Runs, start
from tests.troubles import ended, largest_file, small_disk

TORCH_MESSAGES = {
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 8000000000 bytes. Error code 12 (Cannot allocate memory)": "y (8 GB",
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity": "of the device",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "of the device",
    "unable to mmap 343 bytes from file </tmp/x>: Cannot allocate memory (12)": "out of memory",
    "can't start new thread": "no thread can be started",
    "unable to write to file </torch_17_4_0>: No space left on device (28)": "--shm-size",
    "DataLoader worker (pid 17) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit.": "--shm-size",
    "DataLoader worker (pid(s) 17, 18) exited unexpectedly": "(exited unexpectedly)",
}


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "ENAMETOOLONG", "EMFILE", "ENOENT"],
)
def test_an_error_of_the_disk_names_file_reason_and_remedy(name):
    number = getattr(errno, name)
    line = describe(OSError(number, os.strerror(number), "out/scores.csv"))
    assert line is not None
    assert line.startswith(f"out/scores.csv: {os.strerror(number)}; ")
    assert line.endswith("; files written so far are whole")
    assert "\n" not in line


@pytest.mark.parametrize(("message", "said"), TORCH_MESSAGES.items())
def test_torch_tells_troubles_by_texts(message, said):
    line = describe(RuntimeError(message))
    assert line is not None
    assert said in line
    assert "\n" not in line


def test_memory_that_is_not_there_is_one_line():
    """As numpy and torch say it now."""
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**55, np.uint8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**55, dtype=torch.uint8)
    for found in (of_numpy.value, of_torch.value, MemoryError()):
        assert str(describe(found)).startswith("out of memory")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EINVAL, "Invalid argument"),
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError("encoder error -2"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("Caught ValueError in DataLoader worker process 0.\nOriginal Traceback"),
        ValueError("out of memory"),
        ImportError("cannot import name 'x'"),
    ],
)
def test_a_bug_is_no_trouble_of_the_system(error):
    assert describe(error) is None


class Deadly(Dataset):
    """Images whose decoding ends the process that decodes them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_worker_is_one_line():
    with pytest.raises(RuntimeError) as lost:
        list(DataLoader(Deadly(), num_workers=1))
    line = str(describe(lost.value))
    assert line.startswith("a process that decodes images was lost (")
    assert "--workers 0" in line


def test_a_full_save_path_costs_no_results(runs, capsys):
    """Neither the checkpoint nor the state fit; the same command ends well with more room."""
    arguments = runs.flags("train_few", "Brain")
    with small_disk(runs.checkpoints, "64k"):
        status, line = ended(lambda: train_few.main(arguments), capsys)
        assert list(runs.checkpoints.iterdir()) == []
    assert status == 2
    assert f"{runs.checkpoints}/Brain-2shot.pth: No space left on device; free some space" in line
    metrics = runs.metrics("train_few")
    assert metrics["adapters"] is None
    assert len(runs.scores("train_few")) == 10
    again = train_few.main(arguments)
    assert again.image_auroc == metrics["image_auroc"]


def test_a_limit_of_file_sizes_costs_no_results(runs, capsys):
    """The adapters have 400 kB, everything else little."""
    with largest_file(100_000):
        status, line = ended(lambda: runs("train_few", "Brain"), capsys)
    assert status == 2
    assert "Brain-2shot.pth: File too large; raise the limit (ulimit -f)" in line
    assert runs.metrics("train_few")["image_auroc"] >= 0


def test_a_full_output_folder_costs_no_checkpoint(runs, capsys):
    """The training goes on from its state when there is room again."""
    out = runs.out("train_few")
    arguments = runs.flags("train_few", "Brain", "--resume", "yes")
    with small_disk(out, "4k"):
        (out / "full").write_bytes(bytes(4096))
        status, line = ended(lambda: train_few.main(arguments), capsys)
    assert status == 2
    assert f"{out}/scores.csv: No space left on device" in line
    assert load_mvfa(runs.checkpoints / "Brain-2shot.pth").about["ended"]
    train_few.main(arguments)
    assert "note: going on after " in capsys.readouterr().err


def test_every_script_says_it_in_one_line(runs, tmp_path, capsys):
    """With files of 100 bytes at most."""
    runs("train_few", "Brain", "--epoch", 1)
    tested = runs.flags("test_few", "Brain", "--pictures", 1)
    made = [*runs.flags("train_few", "Brain")[:11], "--save_path", str(runs.checkpoints)]
    made += ["--shot", "2", "--fewshot_path", str(runs.demo_root / "fewshot_seed")]
    made += ["--data_path", str(runs.demo_root / "data")]
    drawn = ["draw", "--obj", "Brain", "--data_path", str(runs.demo_root / "data")]
    drawn += ["--shots", "2", "--draws", "9", "--fewshot_path", str(tmp_path / "lists")]
    checked = ["check", "--obj", "Brain", "--data_path", str(runs.demo_root / "data")]
    checked += ["--fewshot_path", str(runs.demo_root / "fewshot_seed")]
    checked += ["--json", str(tmp_path / "report.json")]
    mains = {
        "curves.json": lambda: test_few.main(tested),
        "Brain-2shot.detector": lambda: calibrate.main(made),
        "2-shot.txt": lambda: prepare_data.main(drawn),
        "report.json": lambda: prepare_data.main(checked),
        "": lambda: demo.main(["--root", str(tmp_path / "demo")]),
    }
    for name, main in mains.items():
        with largest_file(100):
            status, line = ended(main, capsys)
        assert status == 2
        assert name in line
        assert "File too large" in line


def test_predict_keeps_what_was_finished(tmp_path, tiny_path, capsys):
    """The log has no room for the second batch; the same command goes on with it."""
    from PIL import Image

    import predict
    from tests.detectors import random_detector, random_images

    random_detector(tiny_path).save(tmp_path / "x.detector")
    images = tmp_path / "images"
    images.mkdir()
    for k, pixels in enumerate(random_images(40, 32)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(images / f"{k:02d}.png")
    flags = ["-i", str(images), "-o", str(tmp_path / "out"), "--clip_path", str(tiny_path)]
    flags += ["--detector", str(tmp_path / "x.detector"), "--device", "cpu"]
    with largest_file(10_000):
        status, line = ended(lambda: predict.main(flags), capsys)
    assert status == 2
    assert "rows.jsonl: File too large" in line
    summary = predict.main(flags)
    assert re.search(r"going on, (1[6-9]|2\d) were scored before", capsys.readouterr().err)
    assert summary.scored == 40


def test_too_little_memory_is_one_line_during_imports(tmp_path):
    limited = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2)\n"
        "sys.argv = ['train_few.py', '--obj', 'Brain', '--clip_path', sys.argv[1]]\n"
        "runpy.run_path('train_few.py', run_name='__main__')\n"
    )
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"")
    ended = start("-c", limited, weights)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: out of memory (")
    assert "or lower --batch_size, --test_batch_size, --cache_gb or --workers" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

"""benchmarks.gpu on a CPU: every stage runs, with the packages of a plain machine; nothing is lost.

What needs a GPU is tried here with a small network, so that a first run on one is not the first.
"""

import hashlib
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from benchmarks import gpu, gpu_flags, gpu_run
from benchmarks.gpu_data import Plan, write_part
from benchmarks.gpu_lab import Lab
from benchmarks.gpu_parity import AUROCS, OBJECTS, compare, computed, published
from benchmarks.gpu_rows import Row, compared, guarded
from benchmarks.gpu_run import GRACE, watch
from benchmarks.gpu_settings import Setting
from benchmarks.gpu_worker import Stage, serve
from dataset.layout import image_folder, mask_folder
from errors import UserError
from mvfa.cli import command
from tests.parity import CPU, Bench
from tests.script_runs import ROOT

# what a plain machine has besides Python: packages of requirements.txt, and what those import
PLAIN = (
    *("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"),
    *("fsspec", "typing_extensions", "filelock", "triton", "setuptools"),
    *("numpy", "scipy", "sklearn", "joblib", "cloudpickle", "narwhals", "threadpoolctl"),
    *("pandas", "dateutil", "pytz", "six", "tzdata"),
    *("cv2", "PIL", "psutil", "tqdm", "regex", "safetensors"),
)
MISSING = ("ftfy", "kornia", "plotly", "submitit", "tabulate", "platformdirs", "torchvision")
# other packages are not found, as if they were not installed
HIDING = f"""
import sys
from pathlib import Path

MISSING = {MISSING!r}
ALLOWED = {{*{PLAIN!r}, *(path.stem for path in Path({str(ROOT)!r}).iterdir())}}


class Filter:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *more):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top in ALLOWED or top.startswith("_")
        return self.finder.find_spec(name, *more) if known else None

    def find_distributions(self, *arguments):
        find = getattr(self.finder, "find_distributions", lambda *_: ())
        return (one for one in find(*arguments) if one.name.lower() not in MISSING)


sys.meta_path[:] = map(Filter, sys.meta_path)
"""
# the beginning of a row of each stage
ROWS = {
    "ceilings": "matrix product, fp32, TF32",
    "inputs": "weights",
    "parity": "Chest: adapter norms after 44 steps",
    "precision": "bf16 against fp32: maps",
    "training": "training in fp16: steps left out",
    "test": "test images/s, K = 2, batch 8, fp16, cached features",
    "steps": "training steps/s, batch 1, fp16, graph",
    "waits": "waits in 2 test batches, cached features",
    "latency": "one image, fp16, graph",
    "metrics": "metrics: pixel AUROC against the CPU's",
    "memory": "peak device memory, training, batch 8, fp16",
    "compiled": "training steps/s, batch 8, fp16, compiled",
    "rival": "test, this program against it",
    "run": "1-shot Brain run: all",
}
TIMEOUT = 600


@pytest.fixture
def plain_machine(tmp_path) -> dict[str, str]:
    """Return an environment in which few packages are found."""
    folder = tmp_path / "hiding"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDING)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def setting_of(folder: Path, seconds: float = 300, patience: float = 1.0) -> Setting:
    deadline = time.monotonic() + seconds
    return Setting(
        "cpu", small=True, weights=None, scratch=folder, deadline=deadline, patience=patience
    )


# -------------------------------------------------------------------- all stages


def test_every_stage_runs_where_few_packages_are(plain_machine, tmp_path):
    probe = (
        "from importlib import metadata, util\n"
        f"print([name for name in {MISSING} if util.find_spec(name)])\n"
        f"print({{one.name for one in metadata.distributions()}} & {{*{MISSING}}})\n"
    )
    hidden = subprocess.run(
        [sys.executable, "-c", probe], env=plain_machine, capture_output=True, text=True, check=True
    )
    assert hidden.stdout == "[]\nset()\n"
    out = tmp_path / "gpu.md"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--out", out, "--budget", "1500"],
        cwd=ROOT,
        env=plain_machine,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert out.read_text() == ended.stdout
    assert list(ROWS) == list(gpu_flags.STAGES) == [stage.name for stage in gpu.STAGES]
    lines = ended.stdout.splitlines()
    for row in ROWS.values():
        assert [line for line in lines if line.startswith(f"| {row} |")], row
    for word in ("failed", "FAIL", "nan", "skipped"):
        assert not [line for line in lines if line.startswith("|") and word in line], word


def test_without_a_gpu_it_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        command(lambda: gpu.main([]))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("error: no GPU that torch can use here, only cpu; pass --small")


@pytest.mark.parametrize("budget", ["0", "-5", "nan", "inf", "1e300", "abc"])
def test_a_budget_is_some_seconds(budget):
    with pytest.raises(UserError, match=r"argument --budget: .*\(see -m benchmarks.gpu --help\)"):
        gpu.main(["--small", "--budget", budget])


def test_weights_are_read_before_anything_is_measured(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_text("broken")
    out = tmp_path / "gpu.md"
    for path, said in ((broken, "is not a readable weight file"), (tmp_path / "no", "not a file")):
        with pytest.raises(UserError, match=said):
            gpu.main(["--small", "--clip_path", str(path), "--out", str(out)])
    assert not out.exists()


def test_a_run_that_measures_nothing_is_no_success(tmp_path, capsys):
    """The table of an earlier run stays beside."""
    out = tmp_path / "gpu.md"
    out.write_text("a card's table")
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--only", "run", "--budget", "5", "--out", str(out)])
    assert ended.value.code == 1
    assert "stages left out: 1." in capsys.readouterr().out
    assert (tmp_path / "gpu.md.old").read_text() == "a card's table"


def test_a_small_run_has_a_table_of_its_own():
    assert gpu_flags.parse([]).out.name == "gpu.md"
    assert gpu_flags.parse(["--small"]).out.name == "gpu-small.md"


def test_a_process_whose_parent_is_gone_ends_without_a_word(tmp_path, capfd):
    ours, theirs = mp.Pipe()
    setting = setting_of(tmp_path)
    process = mp.get_context("spawn").Process(target=serve, args=(theirs, setting))
    process.start()
    theirs.close()
    assert ours.poll(TIMEOUT)
    ours.send((Stage("many", many_rows, 10), {}))
    ours.close()
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err


def many_rows(lab: Lab):  # noqa: ARG001
    while True:
        yield Row("one", "more")


def test_a_table_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is a folder; pass a file"):
        gpu.main(["--small", "--out", str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*: File exists; choose another"):
        gpu.main(["--small", "--out", str(tmp_path / "file" / "gpu.md")])


# -------------------------------------------------------------------- what fails


def fine(lab):
    lab.facts["known"] = lab.facts.get("known", 0) + 1
    yield Row("fine", f"{lab.facts['known']:g} times")


def raises(lab):  # noqa: ARG001
    yield Row("before", "1")
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def dies(lab):  # noqa: ARG001
    yield Row("alive", "1")
    os._exit(3)


def hangs(lab):  # noqa: ARG001
    yield Row("begun", "1")
    time.sleep(TIMEOUT)


def loses_its_device(lab):
    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    lab.device = type("Lost", (), {"type": "mps"})()
    torch.mps.synchronize = synchronize
    yield Row("lost", "1")


def measured(tmp_path, capsys, *stages, seconds=300.0, patience=1.0) -> list[str]:
    """Return the rows that some stages give, which are also in the file."""
    report = gpu.Report(tmp_path / "rows.md")
    gpu.measure(stages, setting_of(tmp_path, seconds, patience), report)
    printed = capsys.readouterr().out
    assert (tmp_path / "rows.md").read_text() == printed
    return printed.splitlines()


def test_after_a_failure_the_next_stage_runs(tmp_path, capsys):
    """An error, an end of the process, a device that is lost: one row each, and facts stay."""
    stages = [
        Stage("first", fine, 1),
        Stage("error", raises, 1),
        Stage("second", fine, 1),
        Stage("end", dies, 1),
        Stage("third", fine, 1),
        Stage("device", loses_its_device, 1),
        Stage("fourth", fine, 1),
    ]
    assert measured(tmp_path, capsys, *stages) == [
        "| fine | 1 times |  |  |",
        "| before | 1 |  |  |",
        "| error | failed: CUDA out of memory. |  | OutOfMemoryError in raises |",
        "| fine | 2 times |  |  |",
        "| alive | 1 |  |  |",
        "| end | failed: the process ended with status 3 |  |  |",
        "| fine | 3 times |  |  |",
        "| lost | 1 |  |  |",
        "| fine | 4 times |  |  |",
    ]


def test_a_stage_that_hangs_is_stopped(tmp_path, capsys):
    rows = measured(
        tmp_path, capsys, Stage("slow", hangs, 1), Stage("fine", fine, 1), patience=0.05
    )
    assert rows[0] == "| begun | 1 |  |  |"
    assert rows[1].startswith("| slow | failed: stopped after 3 s |")
    assert rows[2] == "| fine | 1 times |  |  |"


def test_stages_that_do_not_fit_are_said_to_be_left_out(tmp_path, capsys):
    stages = (Stage("long", raises, 60), Stage("held", raises, 10, reserve=60))
    long, held = measured(tmp_path, capsys, *stages, seconds=50)
    assert long.startswith("| long | skipped |  | needs about 60 s")
    assert held.startswith(
        "| held | skipped |  | needs about 10 s, and 60 s are kept for what follows; "
    )


def test_a_part_that_raises_keeps_the_rows_before_it():
    def measure():
        yield Row("a", "1")
        raise ValueError("first line\nsecond line")

    rows = list(guarded("part", measure))
    assert [row.bad for row in rows] == [False, True]
    assert rows[1] == Row("part", "failed: first line", "", "ValueError in measure")


def test_ctrl_c_keeps_the_rows_and_ends_all_processes(tmp_path):
    out = tmp_path / "gpu.md"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--out", out],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + TIMEOUT
    row = "| copy within the device |"
    while not (out.exists() and row in out.read_text()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.rstrip().endswith("stopped; files written so far are whole")
    assert row in out.read_text()
    assert not [child for child in psutil.wait_procs(children, timeout=5)[1] if alive(child)]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# -------------------------------------------------------------------- numbers


@pytest.mark.parametrize("obj", OBJECTS)
def test_every_figure_has_a_published_value_and_is_compared(tmp_path, obj):
    """The names of the figures, and that a figure somewhat beyond its tolerance is told."""
    bench = Bench(Lab(setting_of(tmp_path)).folder, obj, device=CPU)
    expected = published(obj)
    for name, got in computed(bench):
        assert expected[name] is not None, name
        row = compare(obj, name, got, got)
        assert not row.bad, row
        bound = float(row.wanted.removeprefix("at most "))
        for factor, bad in ((0.9, False), (1.2, True)):
            assert compare(obj, name, shifted(name, got, factor * bound), got).bad == bad, name


def shifted(name, values, by):
    """Return values with one of them changed, in the way that its figure is compared."""
    if name.endswith(tuple(AUROCS)):
        return values + by
    if isinstance(values, dict):
        first = next(iter(values))
        return values | {first: values[first] * (1 + by)}
    values = values.numpy() if isinstance(values, torch.Tensor) else values
    array = np.array(values, np.float64)
    place = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[place] += by * (np.abs(array).max() or 1.0)
    return array


def test_a_figure_that_is_no_number_fails():
    assert compared("x", float("nan"), 1.0).bad


# -------------------------------------------------------------------- the whole run

EPOCHS = """
import sys, time
for epoch in range(int(sys.argv[1])):
    print(f"epoch  {epoch} :", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_run_that_ends_is_measured(tmp_path):
    program = [sys.executable, "-c", EPOCHS, "3", "0.5"]
    found = watch(program, 60, tmp_path / "log", CPU)
    assert not found.stopped
    assert len(found.epochs) == 3
    assert found.whole(3) == found.end
    assert len(found.later()) == 2
    assert all(0.4 < seconds < 3 for seconds in (found.first(), *found.later()))


def test_a_run_that_takes_too_long_is_stopped_and_extrapolated(tmp_path):
    program = [sys.executable, "-c", EPOCHS, "1000", "0.5"]
    started = time.monotonic()
    found = watch(program, 3, tmp_path / "log", CPU)
    assert time.monotonic() - started < 3 + GRACE  # it was not killed
    assert found.stopped
    assert len(found.later()) >= 1
    per_epoch = (found.whole(1000) - found.epochs[0]) / 1000
    assert 0.4 < per_epoch < 3


def test_a_run_that_comes_to_no_epoch_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE", 0.5)
    program = [sys.executable, "-c", EPOCHS, "1", str(TIMEOUT)]
    with pytest.raises(RuntimeError, match="had begun 1 epochs after 2 s, 3 are needed"):
        watch(program, 2, tmp_path / "log", CPU)


def test_a_run_that_fails_says_why(tmp_path):
    program = [sys.executable, "-c", "raise SystemExit('no such images')"]
    with pytest.raises(RuntimeError, match="status 1: no such images"):
        watch(program, 60, tmp_path / "log", CPU)


def test_no_two_test_images_are_equal(tmp_path):
    plan = Plan(normal=7, abnormal=9, drawn_normal=2, drawn_abnormal=4, side=40)
    for state in ("good", "Ungood"):
        image_folder(tmp_path, "Brain", "test", state).mkdir(parents=True)
    masks = mask_folder(image_folder(tmp_path, "Brain", "test", "Ungood"))
    masks.mkdir()
    for first in range(3):
        write_part(tmp_path, plan, first, 3)
    images = sorted(tmp_path.rglob("img/*.png"))
    assert len(images) == 16
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in images}) == 16
    assert [path.name for path in sorted(masks.iterdir())] == [f"{i:05d}.png" for i in range(9)]

"""Devices: which there are, what they are asked for, and loops that run ahead of one."""

import ast
import warnings

import pytest
import torch

from errors import UserError
from mvfa import accelerator, histograms
from mvfa.accelerator import capture, choose_device, read_later, upload, usable_devices
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import evaluate
from mvfa.histograms import StreamingHistogram
from tests.image_sets import CPU, Pictures, drawn_method, loader
from tests.queued_device import queued
from tests.test_structure import ROOT, sources, title

# of a loader that would pin memory
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
HOME = ROOT / "mvfa" / "accelerator.py"
KINDS = {"cuda", "mps", "xpu", "hip"}
IN_TEXTS = {  # where users read the names of devices, and the released code's own
    "mvfa/shared_flags.py",
    "prediction/options.py",
    "prediction/app_options.py",
    "benchmarks/baseline_network.py",
}


def device_names(path) -> set[str]:
    """Return kinds of devices that a file names in code: torch.cuda, or "cuda" alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in KINDS:
            found.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= KINDS & {node.value.split(":")[0]}
    return found


def test_one_module_names_kinds_of_devices():
    named = {title(path): device_names(path) for path in sources() if path != HOME}
    assert {name for name, kinds in named.items() if kinds} <= IN_TEXTS
    assert device_names(HOME) >= {"cuda", "mps"}


def test_an_unusable_device_is_refused():
    with pytest.raises(UserError, match="--device 'nonsense' cannot be used here; usable: cpu"):
        choose_device("nonsense")
    assert choose_device("cpu").type == "cpu"


def test_every_usable_device_can_be_named(monkeypatch):
    assert [choose_device(name).type for name in usable_devices()] == usable_devices()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "mps" in usable_devices()
    if not torch.cuda.is_available():
        assert choose_device(None).type == "cpu"  # mps is used only if named


def test_products_are_not_rounded_to_tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    accelerator.exact_products()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    accelerator.exact_products(False)
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    accelerator.exact_products()


def test_on_a_cpu_nothing_is_copied_and_numbers_are_read_at_once():
    values = torch.arange(3.0)
    assert upload(values, CPU) is values
    read = read_later(values[1])
    values[1] = 7
    assert read() == 1


def test_what_is_captured_runs_again_on_a_cpu():
    values = torch.zeros(2)
    replay = capture(lambda: values.add_(1), CPU)
    assert values.tolist() == [1, 1]
    replay()
    assert values.tolist() == [2, 2]


def test_a_capture_warms_up_beside_the_work(monkeypatch):
    """The calls into torch.cuda are checked by name and arguments; a graph replays itself."""
    seen = queued(monkeypatch)
    runs = []
    replay = capture(lambda: runs.append(0), CPU)
    assert len(runs) == accelerator.WARM_UP + 1  # the last one is captured
    graph = seen.cuda.CUDAGraph.return_value
    assert graph.replay.call_count == 1
    replay()
    assert graph.replay.call_count == 2
    assert len(runs) == accelerator.WARM_UP + 1


def test_waits_for_a_device_are_found_by_line(monkeypatch):
    with accelerator.waits(CPU) as places:
        torch.ones(1).item()
    assert places == []
    seen = queued(monkeypatch)
    with accelerator.waits(CPU) as places:
        seen.cuda.set_sync_debug_mode.assert_called_with("warn")
        warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
        warnings.warn("another matter", UserWarning, stacklevel=1)
    seen.cuda.set_sync_debug_mode.assert_called_with("default")
    (place,) = places
    assert place.startswith(f"{__file__}:")


def test_an_upload_waits_on_the_device_only(monkeypatch):
    seen = queued(monkeypatch)
    work = seen.cuda.current_stream.return_value
    values = torch.arange(4.0)
    copy = upload(values, CPU)
    assert torch.equal(copy, values)
    work.wait_stream.assert_called_once_with(seen.cuda.Stream.return_value)
    seen.cuda.synchronize.assert_not_called()


def test_a_number_is_read_when_its_event_is_done(monkeypatch):
    seen = queued(monkeypatch)
    event = seen.cuda.Event.return_value
    read = read_later(torch.tensor(3.0))
    event.record.assert_called_once()
    event.synchronize.assert_not_called()
    assert read() == 3
    event.synchronize.assert_called_once()


def results_of(tiny) -> tuple:
    """Train for some steps, build a bank, predict and evaluate; return what came out."""
    pictures = Pictures(10, masked="all")
    method = drawn_method(tiny)
    trainer = Trainer(method, 1e-2)
    batches = loader(method, pictures, 2, cache_gb=1e-4)  # holds some of the images
    losses: list[float] = []
    mean = train(trainer, batches, [3, 1, 2, 0, 9, 8, 7, 6, 5], report=losses.append)
    bank = build_memory(method, batches, [0, 2])
    result = evaluate(predict(method, batches, bank))
    return losses, mean, method.state(), result.scores, result.pixel_auroc, result.image_auroc


def test_loops_that_run_ahead_compute_the_same(monkeypatch, tiny):
    plain = results_of(tiny)
    queued(monkeypatch)
    ahead = results_of(tiny)
    assert len(plain[0]) == 5
    assert ahead[:2] == plain[:2]
    for group, values in plain[2].items():
        for name, value in values.items():
            assert torch.equal(value, ahead[2][group][name])
    assert torch.equal(ahead[3], plain[3])
    assert ahead[4:] == plain[4:]


def test_a_test_is_timed_to_its_end(monkeypatch, tiny):
    seen = queued(monkeypatch)
    method = drawn_method(tiny)
    predict(method, loader(method, Pictures(4)), None)
    seen.cuda.synchronize.assert_called_once_with(CPU)


def test_no_number_is_read_before_the_next_step(monkeypatch, tiny):
    queued(monkeypatch)
    events: list[str] = []
    method = drawn_method(tiny)
    trainer = Trainer(method, 1e-3)
    gradients = trainer.gradients

    def noted(*inputs):
        events.append("step")
        return gradients(*inputs)

    def read(value):
        number = value.item()

        def later() -> float:
            events.append("read")
            return number

        return later

    monkeypatch.setattr(trainer, "gradients", noted)
    monkeypatch.setattr("mvfa.engine.read_later", read)
    train(trainer, loader(method, Pictures(6, masked="all"), 2), range(6))
    assert events == ["step", "step", "read", "step", "read", "read"]


def test_a_loss_that_is_not_finite_stops_one_step_later(monkeypatch, tiny):
    queued(monkeypatch)
    method = drawn_method(tiny)
    method.text = {noun: value * float("nan") for noun, value in method.text.items()}
    trainer = Trainer(method, 1e-3)
    batches = loader(method, Pictures(6, masked="all"), 1)
    steps = []
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda *given: steps.append(0) or step(*given))
    with pytest.raises(UserError, match="the loss became nan: the text features are not finite"):
        train(trainer, batches, range(6))
    assert len(steps) == 2


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_wrong_score_of_a_device_is_refused_at_the_end(monkeypatch, wrong):
    monkeypatch.setattr(histograms, "is_cuda", lambda _: True)
    found = StreamingHistogram(exact_limit=100)
    labels = torch.arange(400) % 2 == 0
    scores = torch.rand(400, generator=torch.Generator().manual_seed(1))
    found.update(scores, labels)
    found.histogram()
    found.update(torch.where(torch.arange(400) == 7, wrong, scores), labels)
    found.update(scores, labels)
    with pytest.raises(UserError, match="not finite or not in"):
        found.histogram()

"""Stages of benchmarks.gpu about small pieces of work: a training step, and a single image."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.gpu_lab import Lab, rates
from benchmarks.gpu_rows import Row, guarded, middle, number
from benchmarks.gpu_speed import passes
from mvfa.accelerator import capture, is_cuda, waits
from mvfa.engine import Trainer, predict, train
from mvfa.methods.mvfa import Mvfa

EAGER = "eager"
COMPILED = "compiled"  # by torch.compile
GRAPH = "graph"  # captured as a CUDA graph and replayed
COMPILED_GRAPH = "compiled graph"
PRECISION = "fp16"
WANTED_STEPS = 100  # a second, batch 1
WAITING_BATCH = 8
UNCOUNTED = "not counted on this device"
LATENCIES = 30  # single images in one measurement


class Steps:
    """Training steps with cached features. Calling it makes the steps that are timed.

    Args:
        lab: what is shared.
        batch: images of a step.
        way: EAGER, COMPILED, GRAPH or COMPILED_GRAPH.

    """

    def __init__(self, lab: Lab, batch: int, way: str) -> None:
        method = lab.method(PRECISION, compiled=way in (COMPILED, COMPILED_GRAPH))
        source = lab.support(lab.sizes.banks[0])
        self.loader = lab.loader(source, method, batch, cached=True)
        self.trainer = Trainer(method, 1e-3, PRECISION, graphs=way in (GRAPH, COMPILED_GRAPH))
        count = lab.sizes.steps * batch
        step = max(1, len(source) // count)  # images with and without lesions
        self.order = [i * step % len(source) for i in range(count)]
        self.steps = lab.sizes.steps

    def __call__(self) -> None:
        """Make the steps."""
        train(self.trainer, self.loader, self.order)


def steps(lab: Lab) -> Iterator[Row]:
    """Measure training steps a second; only those of one image are captured."""
    for batch, way in ((1, EAGER), (8, EAGER), (1, GRAPH)):
        yield from guarded(f"training, batch {batch}, {way}", partial(timed, lab, batch, way))


def timed(lab: Lab, batch: int, way: str) -> Iterator[Row]:
    """Measure training steps of one kind."""
    work = Steps(lab, batch, way)
    seconds = lab.seconds(work)
    rate = rates(work.steps, seconds)
    lab.facts[f"steps/s, batch {batch}, {way}"] = rate
    wanted = f"{WANTED_STEPS}" if batch == 1 and not lab.setting.small else ""
    remark = f"cached features; {work.steps} steps; {middle(seconds)}"
    yield Row(f"training steps/s, batch {batch}, {PRECISION}, {way}", number(rate), wanted, remark)


def loops(lab: Lab) -> Iterator[Row]:
    """Count how often the loops wait for the device: a step and a test image need not."""
    for batch in (1, 8):
        work = Steps(lab, batch, EAGER)
        what = f"waits in {work.steps} training steps, batch {batch}"
        yield from guarded(what, partial(waited, lab, what, work))
    method = lab.method(PRECISION)
    bank = lab.bank(lab.sizes.banks[0], PRECISION)
    for cached in (False, True):
        source = lab.source(2 * WAITING_BATCH)
        loader = lab.loader(source, method, WAITING_BATCH, cached=cached)
        what = f"waits in 2 test batches, {'cached features' if cached else 'first time'}"
        tested = partial(predict, method, loader, bank)
        yield from guarded(what, partial(waited, lab, what, tested))


def waited(lab: Lab, what: str, work: Callable[[], object]) -> Iterator[Row]:
    """Count the waits of a piece of work when it is done for the second time."""
    work()
    with waits(lab.device) as places:
        work()
    named = [f"{Path(place).name} ({count})" for place, count in Counter(places).most_common(4)]
    count = f"{len(places)}" if is_cuda(lab.device) else UNCOUNTED
    yield Row(what, count, "0", ", ".join(named))


def latency(lab: Lab) -> Iterator[Row]:
    """Measure a single image from its bytes to its patch values."""
    for way in (EAGER, GRAPH):
        yield from guarded(f"one image, {way}", partial(timed_image, lab, way))


def compiled(lab: Lab) -> Iterator[Row]:
    """Measure a single image, steps and test images with a compiled network; it takes long."""
    yield from guarded(f"one image, {COMPILED}", partial(timed_image, lab, COMPILED))
    for batch, way in ((1, COMPILED), (1, COMPILED_GRAPH), (8, COMPILED)):
        yield from guarded(f"training, batch {batch}, {way}", partial(timed, lab, batch, way))
    k = lab.sizes.banks[0]
    batch = max(lab.sizes.batches)
    measure = partial(passes, lab, k, batch, PRECISION, compiled=True)
    yield from guarded(f"test, K = {k}, batch {batch}, {COMPILED}", measure)


def timed_image(lab: Lab, way: str) -> Iterator[Row]:
    """Measure single images of one kind."""
    method = lab.method(PRECISION, compiled=way == COMPILED)
    bank = lab.bank(lab.sizes.banks[0], PRECISION)
    method.prepare_scores()
    score = captured(lab, method, bank) if way == GRAPH else plain(method, bank)
    images = lab.tests[0]

    def work() -> None:
        for i in range(LATENCIES):
            score(images[i % len(images)][None])

    with torch.no_grad():
        seconds = lab.seconds(work)
    remark = f"bytes in memory to patch values in memory, K = {lab.sizes.banks[0]}"
    ms = 1e3 * median(seconds) / LATENCIES
    counted = f"{LATENCIES} images; {middle(seconds)}"
    yield Row(f"one image, {PRECISION}, {way}", f"{ms:.2f} ms", "", f"{remark}; {counted}")


Score = Callable[[Tensor], dict[str, Tensor]]


def plain(method: Mvfa, bank: list[Tensor]) -> Score:
    """Return a function that scores an image [1, 3, S, S] uint8."""

    def score(image: Tensor) -> dict[str, Tensor]:
        found = method.score(method.features(image), bank)
        return {name: values.cpu() for name, values in found.items()}

    return score


def captured(lab: Lab, method: Mvfa, bank: list[Tensor]) -> Score:
    """Return the same function, which replays a CUDA graph."""
    image = lab.tests[0][:1].to(lab.device)
    found: dict[str, Tensor] = {}

    @torch.no_grad()
    def fixed() -> None:
        found.update(method.score(method.features(image), bank))

    replay = capture(fixed, lab.device)

    def score(other: Tensor) -> dict[str, Tensor]:
        image.copy_(other, non_blocking=True)
        replay()
        return {name: values.cpu() for name, values in found.items()}

    return score


# -------------------------------------------------------------------- memory


def memory(lab: Lab) -> Iterator[Row]:
    """Measure the device's peak memory of test passes and of training steps."""
    lab.forget()  # networks and banks of other stages
    for batch in (32, 128):
        yield from guarded(f"memory, test, batch {batch}", partial(test_peak, lab, batch))
    for batch in (1, 8):

        def steps(batch: int = batch) -> Iterator[Row]:
            measured = Steps(lab, batch, EAGER)
            yield peak_row(lab, f"training, batch {batch}, fp16", measured)

        yield from guarded(f"memory, training, batch {batch}", steps)


def test_peak(lab: Lab, batch: int) -> Iterator[Row]:
    """Measure the peak of a test pass with the largest memory bank."""
    k = max(lab.sizes.banks)
    method = lab.method("fp16")
    bank = lab.bank(k, "fp16")
    loader = lab.loader(lab.source(min(2 * batch, lab.sizes.pass_images)), method, batch)
    work = partial(predict, method, loader, bank)
    yield peak_row(lab, f"test, batch {batch}, K = {k}, fp16", work)


def peak_row(lab: Lab, what: str, work: Callable[[], object]) -> Row:
    """Return the row of what is taken at most, with the backbone, while a function runs."""
    peak = lab.peak(work)
    measured = UNCOUNTED if peak is None else f"{peak / 1e9:.2f} GB"
    return Row(f"peak device memory, {what}", measured)

"""Stages of benchmarks.gpu about small pieces of work: a training step, and a single image."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.gpu_lab import Lab, rates
from benchmarks.gpu_rows import Row, guarded, middle, number
from mvfa.accelerator import capture
from mvfa.engine import Trainer, train
from mvfa.methods.mvfa import Mvfa

EAGER = "eager"
COMPILED = "compiled"  # by torch.compile
GRAPH = "graph"  # captured as a CUDA graph and replayed
PRECISION = "fp16"
WANTED_STEPS = 100  # a second, batch 1
LATENCIES = 30  # single images in one measurement


def compile_network(lab: Lab, method: Mvfa) -> None:
    """Compile a network; with --small torch.compile is called, but compiles nothing."""
    if lab.setting.small:
        torch.compiler.set_stance("force_eager")
    method.compile_network()


class Steps:
    """Training steps with cached features. Calling it makes the steps that are timed.

    Args:
        lab: what is shared.
        batch: images of a step.
        way: EAGER, COMPILED or GRAPH.

    """

    def __init__(self, lab: Lab, batch: int, way: str) -> None:
        method = lab.method(PRECISION)
        if way == COMPILED:
            compile_network(lab, method)
        source = lab.support(lab.sizes.banks[0])
        self.loader = lab.loader(source, method, batch, cached=True)
        self.trainer = Trainer(method, 1e-3, PRECISION, graphs=way == GRAPH)
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


def latency(lab: Lab) -> Iterator[Row]:
    """Measure a single image from its bytes to its patch values."""
    for way in (EAGER, GRAPH):
        yield from guarded(f"one image, {way}", partial(timed_image, lab, way))


def compiled(lab: Lab) -> Iterator[Row]:
    """Measure a single image and training steps with a compiled network; compiling takes long."""
    yield from guarded(f"one image, {COMPILED}", partial(timed_image, lab, COMPILED))
    for batch in (1, 8):
        what = f"training, batch {batch}, {COMPILED}"
        yield from guarded(what, partial(timed, lab, batch, COMPILED))


def timed_image(lab: Lab, way: str) -> Iterator[Row]:
    """Measure single images of one kind."""
    method = lab.method(PRECISION)
    bank = lab.bank(lab.sizes.banks[0], PRECISION)
    method.prepare_scores()
    if way == COMPILED:
        compile_network(lab, method)
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

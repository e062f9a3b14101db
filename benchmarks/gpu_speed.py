"""Stages of benchmarks.gpu that measure a device: its ceilings, the test, metrics, memory.

Letters: K shots, B images of a batch, M rows of the memory bank.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from benchmarks.gpu_lab import Lab, rates
from benchmarks.gpu_rows import Row, compared, guarded, middle, number
from benchmarks.measure import image_products
from mvfa.accelerator import exact_products
from mvfa.engine import predict
from mvfa.evaluation import Evaluation, evaluate
from mvfa.recipe import LEVELS

CALLS = 10  # of a short operation in one measurement
WANTED = {4: 1_500, 16: 900}  # images/s of the test by K, best batch
WORKERS = 4  # as on CUDA by default


def ceilings(lab: Lab) -> Iterator[Row]:
    """Measure the device's copies and large matrix products, of random numbers."""
    yield from guarded("copy within the device", partial(copies, lab))
    exact_products()
    for name, dtype in (
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("fp32, no TF32", torch.float32),
    ):
        yield from guarded(f"matrix product, {name}", partial(products, lab, name, dtype))
    exact_products(False)
    name = "fp32, TF32"
    yield from guarded(f"matrix product, {name}", partial(products, lab, name, torch.float32))
    exact_products()


def copies(lab: Lab) -> Iterator[Row]:
    """Measure a large copy."""
    source = torch.randint(0, 255, (lab.sizes.copied,), dtype=torch.uint8, device=lab.device)
    target = torch.empty_like(source)

    def work() -> None:
        for _ in range(CALLS):
            target.copy_(source)

    seconds = lab.seconds(work)
    rate = rates(2 * CALLS * source.nbytes, seconds)
    remark = f"{source.nbytes / 2**20:.0f} MiB, bytes read and written; {middle(seconds)}"
    yield Row("copy within the device", f"{number(rate / 1e9)} GB/s", "", remark)


def products(lab: Lab, name: str, dtype: torch.dtype) -> Iterator[Row]:
    """Measure a large matrix product of a type, and leave its rate as a fact."""
    side = lab.sizes.product
    generator = torch.Generator(lab.device).manual_seed(0)
    a = torch.randn(side, side, device=lab.device, generator=generator).to(dtype)
    b = torch.randn(side, side, device=lab.device, generator=generator).to(dtype)

    def work() -> None:
        for _ in range(CALLS):
            torch.mm(a, b)

    seconds = lab.seconds(work)
    rate = rates(2 * CALLS * side**3, seconds)
    lab.facts[f"product rate, {name}"] = rate
    remark = f"{side} x {side}, random; {middle(seconds)}"
    yield Row(f"matrix product, {name}", f"{number(rate / 1e12)} TFLOP/s", "", remark)


# -------------------------------------------------------------------- the test


def inputs(lab: Lab) -> Iterator[Row]:
    """Write the stand-in weights and draw the images that later stages use."""
    start = time.monotonic()
    size = lab.weights.stat().st_size
    spent = time.monotonic() - start
    yield Row("weights", f"{spent:.1f} s", "", f"{lab.weights.name}, {size / 1e6:.0f} MB")
    start = time.monotonic()
    count = len(lab.tests[0]) + len(lab.shots[0])
    remark = f"{count} images of {lab.sizes.side} x {lab.sizes.side}, one thread"
    yield Row("images drawn", f"{time.monotonic() - start:.1f} s", "", remark)


def test(lab: Lab) -> Iterator[Row]:
    """Measure test images a second, by size of the memory bank and of the batch."""
    for k in lab.sizes.banks:
        for batch in lab.sizes.batches:
            measure = partial(passes, lab, k, batch, "fp16")
            yield from guarded(f"test, K = {k}, batch {batch}", measure)
        best = lab.facts.get(f"test images/s, K = {k}")
        if best is None:
            continue
        wanted = "" if lab.setting.small else f"{WANTED[k]:,}"
        remark = "first time, best batch"
        yield Row(f"test images/s, K = {k}", number(best), wanted, remark)
    k = lab.sizes.banks[0]
    batch = 32
    for name, measure in (
        ("bf16", partial(passes, lab, k, batch, "bf16")),
        (f"{WORKERS} workers", partial(passes, lab, k, batch, "fp16", WORKERS)),
    ):
        yield from guarded(f"test, K = {k}, batch {batch}, {name}", measure)


def pass_length(lab: Lab, batch: int) -> int:
    """Return how many images a timed pass has: whole batches."""
    count = min(lab.sizes.pass_images, 32 * batch)
    return max(batch, count // batch * batch)


def passes(
    lab: Lab, k: int, batch: int, precision: str, workers: int = 0, *, compiled: bool = False
) -> Iterator[Row]:
    """Measure passes over test images: first time, and with cached features."""
    bank = lab.bank(k, precision)
    method = lab.method(precision, compiled=compiled)
    source = lab.source(pass_length(lab, batch))
    plain = lab.loader(source, method, batch, workers=workers)
    cached = lab.loader(source, method, batch, cached=True)
    product = lab.facts.get(f"product rate, {precision}", math.nan)
    config = lab.network(precision).config
    what = f"test images/s, K = {k}, batch {batch}, {precision}"
    what += f", {workers} workers" * bool(workers) + ", compiled" * compiled
    for name, loader, skipped in (("first time", plain, 0), ("cached features", cached, LEVELS[0])):
        if workers and loader is cached:
            continue  # needs none
        seconds = lab.seconds(partial(predict, method, loader, bank))
        rate = rates(len(source), seconds)
        needed = image_products(config, lab.sizes.side, skipped=skipped, bank=len(bank[0]))
        remark = f"{len(source)} images; {middle(seconds)}"
        if not lab.setting.small:  # whose products are too small for a rate
            remark = f"{rate * needed / product:.0%} of the {precision} product rate; {remark}"
        yield Row(f"{what}, {name}", number(rate), "", remark)
        if loader is plain and precision == "fp16" and not compiled:
            fact = f"test images/s, K = {k}"
            lab.facts[fact] = max(rate, lab.facts.get(fact, 0.0))


# -------------------------------------------------------------------- metrics


def metrics(lab: Lab) -> Iterator[Row]:
    """Measure the metrics of a whole test set, and compare them with the CPU's."""
    from benchmarks.synthetic import make, predictions  # imports scikit-learn

    plain = predictions(make(lab.sizes.maps, lab.sizes.map_side))
    assert plain.logits is not None
    assert plain.distance is not None
    moved = replace(
        plain, logits=plain.logits.to(lab.device), distance=plain.distance.to(lab.device)
    )
    found: list[Evaluation] = []
    seconds = lab.seconds(lambda: found.append(evaluate(moved)), 3)
    side = lab.sizes.map_side
    what = f"metrics of {lab.sizes.maps:,} maps of {side} x {side}"
    yield Row(what, f"{median(seconds):.2f} s", "", middle(seconds))
    start = time.monotonic()
    expected = evaluate(plain)
    spent = f"the CPU took {time.monotonic() - start:.1f} s"
    for name in ("image_auroc", "pixel_auroc"):
        far = abs(getattr(found[-1], name) - getattr(expected, name))
        title = name.replace("_auroc", " AUROC")
        yield compared(f"metrics: {title} against the CPU's", far, 1e-6, spent)

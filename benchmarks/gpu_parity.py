"""Stages of benchmarks.gpu that say whether numbers are right on a device.

Parity: SPEC section 8's reference values (of the released code) against the program's, in fp32.
With --small the network is a small one, and its numbers on the CPU take the reference's place.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_lab import Lab
from benchmarks.gpu_rows import Row, compared, guarded
from CLIP.adapter import HEADS
from mvfa.accelerator import exact_products
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import Evaluation, Maps, evaluate
from mvfa.features import prepare
from mvfa.recipe import LEVELS
from tests.parity import ARRAYS, CPU, EXPECTED, Bench, difference

OBJECTS = ("Brain", "Chest")
CLOSE = 1e-4  # relative
FIRST = 22  # training steps
STEPS = 44
# those of tests/test_parity.py
BOUNDS = {
    f"losses of steps 1 to {FIRST}": 1e-3,
    f"losses of steps {FIRST + 1} to {STEPS}": 1e-1,
    f"adapter norms after {STEPS} steps": 5e-3,
}
# differences of AUROCs, not relative
AUROCS = {"image AUROC": 1e-12, "pixel AUROC": 1e-5}
HALF_BOUND = 1e-3  # of scores and AUROCs between fp16 and fp32

Figures = Iterator[tuple[str, Any]]


def computed(bench: Bench) -> Figures:
    """Yield the name and the values of each figure that SPEC section 8 has of an object."""
    yield "text features", bench.text
    if bench.info.name == "Brain":
        yield "position embedding", bench.clip.visual.positional_embedding[:, ::16]
        yield "network input", prepare(bench.tests[0].image[None], bench.device)
        tokens = bench.tokens()
        for head in HEADS:
            levels = [level[0, :, ::16] for level in getattr(tokens, head)]
            yield f"token features, {head}", torch.stack(levels)
    for setting in ("few", "zero"):
        got = bench.evaluation(few=setting == "few")
        yield f"{setting}-shot scores", got.scores
        yield f"{setting}-shot image AUROC", got.image_auroc
        if bench.info.masks:
            yield f"{setting}-shot pixel AUROC", got.pixel_auroc
        elif setting == "few":
            yield "few-shot text branch", got.text_scores
            yield "few-shot memory branch", got.memory_scores
    if bench.info.name == "Brain":
        yield from maps(bench)
    yield "loss at rate 0", bench.loss()
    losses, model = bench.train(1e-3, STEPS)
    yield f"losses of steps 1 to {FIRST}", losses[:FIRST]
    yield f"losses of steps {FIRST + 1} to {STEPS}", losses[FIRST:]
    norms = {f"{head}.{n}": v.norm().item() for head in HEADS for n, v in weights(model, head)}
    yield f"adapter norms after {STEPS} steps", norms


def weights(model: torch.nn.Module, head: str) -> Iterator[tuple[str, Tensor]]:
    """Return the adapter matrices of a head by name."""
    yield from getattr(model, f"{head}_adapters").state_dict().items()


def maps(bench: Bench) -> Figures:
    """Yield the maps that the reference has, each [S, S]."""
    few = Maps(bench.predictions(few=True))
    zero = Maps(bench.predictions(few=False))
    text, memory, _ = few.block(slice(0, 1))
    assert text is not None
    assert memory is not None
    yield "few-shot text map", text[0]
    yield "few-shot memory map", memory[0]
    yield "few-shot map", few.block(slice(11, 12))[2][0]
    yield "zero-shot map", zero.block(slice(11, 12))[2][0]


def published(obj: str) -> dict[str, Any]:
    """Return the values of the released code by the names of `computed`."""
    few = EXPECTED["test_few"][obj]
    zero = EXPECTED["test_zero"][obj]
    trained = EXPECTED["train_few"][obj]
    losses = trained["loss_per_step_at_lr_1e-3"]
    found = {
        "text features": ARRAYS[f"text_{obj}"],
        "position embedding": ARRAYS["pos_embed"],
        "network input": ARRAYS["image0"],
        "few-shot text branch": few.get("text_branch"),
        "few-shot memory branch": few.get("memory_branch"),
        "few-shot text map": ARRAYS["few_map_zero_first"],
        "few-shot memory map": ARRAYS["few_map_memory_first"],
        "few-shot map": ARRAYS["few_map_last"],
        "zero-shot map": ARRAYS["zero_map_last"],
        "loss at rate 0": trained["loss_at_lr_0"],
        f"losses of steps 1 to {FIRST}": losses[:FIRST],
        f"losses of steps {FIRST + 1} to {STEPS}": losses[FIRST:],
        f"adapter norms after {STEPS} steps": trained["adapter_norms_after"],
    }
    for head in HEADS:
        levels = [ARRAYS[f"{head}_level{level}"] for level in range(len(LEVELS))]
        found[f"token features, {head}"] = levels
    for name, values in (("few", few), ("zero", zero)):
        found[f"{name}-shot scores"] = values["image_scores"]
        found[f"{name}-shot image AUROC"] = values["image_auroc"]
        found[f"{name}-shot pixel AUROC"] = values.get("pixel_auroc")
    return found


def compare(obj: str, name: str, got: Any, expected: Any) -> Row:
    """Return the row of one figure."""
    what = f"{obj}: {name}"
    for kind, bound in AUROCS.items():
        if name.endswith(kind):
            return compared(what, abs(got - expected), bound, f"{got:.4f}; absolute difference")
    if isinstance(got, dict):
        far = max(abs(value / expected[key] - 1) for key, value in got.items())
        return compared(what, far, BOUNDS[name], f"{len(got)} matrices")
    return compared(what, difference(got, expected), BOUNDS.get(name, CLOSE))


def parity(lab: Lab) -> Iterator[Row]:
    """Compare the program on this device with the released code's numbers, in fp32 without TF32."""
    exact_products()
    against = "the released code's (tests/reference)"
    if lab.setting.small:
        against = "this program's on the CPU, small network"
    yield Row("fp32 parity: compared with", against, "", f"on {lab.device}; largest relative error")
    for obj in OBJECTS:
        yield from guarded(f"{obj}: parity", partial(parity_of, lab, obj))


def parity_of(lab: Lab, obj: str) -> Iterator[Row]:
    """Compare all figures of an object."""
    if lab.setting.small:
        expected = dict(computed(Bench(lab.folder, obj, device=CPU)))
    else:
        expected = published(obj)
    for name, got in computed(Bench(lab.folder, obj, device=lab.device)):
        yield compare(obj, name, got, expected[name])


# -------------------------------------------------------------------- precisions


def scored(lab: Lab, precision: str) -> tuple[Evaluation, Tensor]:
    """Return the evaluation of the test images in a precision, and their final maps [n, S, S]."""
    images = lab.source(len(lab.tests[0]))
    method = lab.method(precision)
    bank = lab.bank(lab.sizes.banks[0], precision)
    predictions = predict(method, lab.loader(images, method, 8), bank)
    found = torch.empty(len(images), lab.sizes.side, lab.sizes.side)
    for block, (_, _, final) in Maps(predictions):
        found[block] = final.float().cpu()
    return evaluate(predictions), found


def precisions(lab: Lab) -> Iterator[Row]:
    """Compare scores, AUROCs and maps in fp16 and bf16 with those in fp32, all on this device."""
    exact, exact_maps = scored(lab, "fp32")
    assert exact.pixel_auroc is not None
    count = f"{len(exact_maps)} images, K = {lab.sizes.banks[0]}"
    levels = f"image {exact.image_auroc:.4f}, pixels {exact.pixel_auroc:.4f}"
    yield Row("AUROC in fp32", levels, "", f"{count}; adapters and weights are random")
    for precision in ("fp16", "bf16"):
        yield from guarded(precision, partial(against, lab, precision, exact, exact_maps))


def against(lab: Lab, precision: str, exact: Evaluation, exact_maps: Tensor) -> Iterator[Row]:
    """Compare one precision with fp32."""
    got, got_maps = scored(lab, precision)
    assert got.pixel_auroc is not None
    assert exact.pixel_auroc is not None
    what = f"{precision} against fp32"
    apart = (got.scores - exact.scores).abs()
    yield Row(f"{what}: scores", f"at most {apart.max():.2g}, mean {apart.mean():.2g}")
    for name, difference_ in (
        ("image", got.image_auroc - exact.image_auroc),
        ("pixel", got.pixel_auroc - exact.pixel_auroc),
    ):
        if precision == "fp16" and not lab.setting.small:
            yield compared(f"{what}: {name} AUROC", abs(difference_), HALF_BOUND)
        else:
            yield Row(f"{what}: {name} AUROC", f"{abs(difference_):.2g}")
    yield Row(f"{what}: maps", f"at most {(got_maps - exact_maps).abs().max():.2g}")


# -------------------------------------------------------------------- training


def training(lab: Lab) -> Iterator[Row]:
    """Train in fp16: losses and adapters stay finite, and few steps are left out."""
    precision = "fp16"
    method = lab.method(precision)
    source = lab.support(1 if lab.setting.small else 2)
    loader = lab.loader(source, method, 8, cached=True)
    trainer = Trainer(method, 1e-3, precision)
    scale = trainer.scaler.get_scale()
    skipped = 0

    def report(loss: float) -> None:  # noqa: ARG001
        nonlocal scale, skipped
        now = trainer.scaler.get_scale()
        skipped += now < scale  # a step with gradients that overflow halves the scale
        scale = now

    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    for _ in range(lab.sizes.epochs):
        order = torch.randperm(len(source), generator=generator).tolist()
        losses.append(train(trainer, loader, order, report=report))
    finite = all(v.isfinite().all() for head in HEADS for _, v in weights(method.model, head))
    verdict = "pass" if finite and all(map(math.isfinite, losses)) else "FAIL"
    done = f"{len(losses)} epochs of {-(-len(source) // 8)} steps, batch 8"
    yield Row(
        "training in fp16: losses, adapters",
        f"{verdict}: loss {losses[0]:.4f} to {losses[-1]:.4f}",
        "finite",
        done,
    )
    yield Row(
        "training in fp16: steps left out", f"{skipped}", "few", f"scale {scale:g} at the end"
    )
    bank = build_memory(method, loader, range(len(source) // 2, len(source)))
    tests = lab.source(len(lab.tests[0]))
    got = evaluate(predict(method, lab.loader(tests, method, 8), bank))
    yield Row(
        "training in fp16: AUROC afterwards",
        f"image {got.image_auroc:.4f}, pixels {got.pixel_auroc:.4f}",
        "",
        "drawn images, random backbone",
    )

"""The stage of benchmarks.gpu that measures the released code's manner on the same device."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from benchmarks import baseline
from benchmarks.baseline_network import load
from benchmarks.gpu_lab import OBJECT, Lab, rates
from benchmarks.gpu_rows import Row, guarded, middle, number
from dataset.catalog import ObjectInfo, object_info
from dataset.folder import Record
from mvfa.accelerator import exact_products
from mvfa.defaults import DEFAULT_SEED
from mvfa.recipe import LEVELS

IMAGES = 30
STEPS = 20
WANTED = 30  # times as many test images a second


@dataclass(frozen=True)
class Number:
    """What the baseline needs of a record, of an image in memory."""

    index: int
    label: int
    object: ObjectInfo


@dataclass
class Outputs(baseline.Outputs):
    """The baseline's outputs, for images [n, 3, S, S] uint8 and masks [n, S, S] in memory.

    Reading files is left out on both sides.
    """

    images: Tensor = field(default_factory=lambda: torch.empty(0))
    lesions: Tensor = field(default_factory=lambda: torch.empty(0))

    def add(self, record: Record, side: int) -> Tensor:  # noqa: ARG002
        """Return an image as [1, 3, S, S] float32 in [0, 1], and store its label and mask."""
        index = cast(Number, record).index
        self.labels.append(record.label)
        self.masks.append(self.lesions[index].long().numpy())
        return self.images[index][None].float() / 255


def rival(lab: Lab) -> Iterator[Row]:
    """Measure the released manner: one image at a time, autocast on CUDA, nothing cached."""
    exact_products()  # on CUDA autocast chooses float16
    model = load(lab.weights, lab.sizes.side, LEVELS, str(lab.device), DEFAULT_SEED)
    text = lab.method("fp16").text[object_info(OBJECT).noun]
    yield from guarded("released manner, test", partial(images, lab, model, text))
    yield from guarded("released manner, training", partial(steps, lab, model, text))


def images(lab: Lab, model: baseline.Model, text: Tensor) -> Iterator[Row]:
    """Measure test images with the smallest memory bank."""
    k = lab.sizes.banks[0]
    bank = lab.bank(k, "fp16")
    pixels, masks, labels = lab.tests
    info = object_info(OBJECT)
    count = min(IMAGES, len(pixels))
    records = [cast(Record, Number(i, int(labels[i]), info)) for i in range(count)]

    def work() -> None:
        outputs = Outputs(images=pixels, lesions=masks)
        for record in records:
            baseline.score_image(model, record, text, bank, lab.sizes.side, outputs)

    seconds = lab.seconds(work, 3)
    rate = rates(count, seconds)
    remark = f"K = {k}; {count} images in memory, one at a time; {middle(seconds)}"
    yield Row("test images/s, released manner", number(rate), "", remark)
    ours = lab.facts.get(f"test images/s, K = {k}")
    if ours is not None:
        wanted = "" if lab.setting.small else f"{WANTED}x"
        yield Row("test, this program against it", f"{ours / rate:.3g}x", wanted, "best batch")


def steps(lab: Lab, model: baseline.Model, text: Tensor) -> Iterator[Row]:
    """Measure training steps of one image with a mask."""
    training = baseline.Training(model, 1e-3)
    shots = lab.support(1)
    count = min(STEPS, lab.sizes.steps)

    def work() -> None:
        for i in range(count):
            image, _, row = shots[i % len(shots)]
            training.step(image, shots.labels[row], shots.masks[row], text)

    seconds = lab.seconds(work, 3)
    rate = rates(count, seconds)
    remark = f"one image at a time; {count} steps; {middle(seconds)}"
    yield Row("training steps/s, released manner", number(rate), "", remark)
    ways = {
        name: value for name, value in lab.facts.items() if name.startswith("steps/s, batch 1,")
    }
    for name, ours in ways.items():
        way = name.rpartition(", ")[2]
        yield Row("training, this program against it", f"{ours / rate:.3g}x", "", f"batch 1, {way}")

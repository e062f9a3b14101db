"""The loops of every method: train an epoch, build the memory bank, predict (SPEC section 4).

What they loop over is a `Method`, of mvfa/methods/. Letters: n images of a set, B images of a
batch, L levels, E token width, M rows of the memory bank.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from errors import UserError
from mvfa.accelerator import is_cuda, read_later, synchronize, upload
from mvfa.console import progress
from mvfa.features import Batch, FeatureLoader
from mvfa.methods.base import Method
from mvfa.predictions import Predictions, gather
from mvfa.step_graphs import StepGraphs

ADAM_BETAS = (0.5, 0.999)
LOSS_SCALE = 2.0**12  # at the start, where the backbone is float16

Report = Callable[[float], object]


class Trainer:
    """One Adam optimizer for each group of a method's parameters (MVFA: the heads seg and det).

    `rate` is Adam's learning rate, `precision` the backbone's. With "fp16" the loss is scaled up
    before the backward pass and gradients down after it, since small gradients would vanish; a step
    whose gradients overflow is left out, and the scale is reduced. With `graphs` the gradients of
    steps of one image are captured once and replayed (mvfa/step_graphs.py).
    """

    def __init__(
        self,
        method: Method,
        rate: float,
        precision: str = "fp32",
        betas: tuple[float, float] = ADAM_BETAS,
        *,
        graphs: bool = False,
    ) -> None:
        self.method = method
        device = method.device
        self.scaler = torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=precision == "fp16")
        # creates the scale, for a rank whose first step has no image
        self.scaler.scale(torch.zeros((), device=device))
        self.groups = dict(method.groups())
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)
            for name, parameters in self.groups.items()
        }
        trained = [values for group in self.groups.values() for values in group]
        self.graphs = StepGraphs(self.gradients, trained) if graphs else None
        # images without masks do not move these: what they receive from them is discarded
        self.masked_only = [name for name in self.groups if name not in method.stepped(False)]

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts of all optimizers on the CPU, by group.index.name."""
        return {
            f"{group}.{index}.{name}": value.detach().cpu()
            for group, optimizer in self.optimizers.items()
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Put back `optimizer_tensors` and the scaler's state, for the next step."""
        for group, optimizer in self.optimizers.items():
            content = optimizer.state_dict()
            content["state"] = {}
            for name, value in tensors.items():
                owner, index, entry = name.split(".")
                if owner == group:
                    content["state"].setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict(content)
        self.scaler.load_state_dict(scaler)

    def backward(self, batch: Batch, loader: FeatureLoader) -> list[Tensor]:
        """Add up gradients of the mean loss of a step's images; return its parts on this rank.

        Their sum is the rank's part of the loss. Images of objects without masks come first, see
        `masked_only`.
        """
        source = loader.source
        device = loader.device
        masked = source.masked[batch.members]
        parts = []
        for has_masks in (False, True):
            rows = (masked == has_masks).nonzero().squeeze(1)
            if not len(rows):
                continue
            index = batch.members[rows]
            self._discard(self.masked_only)
            masks = upload(loader.masks(index.tolist()), device) if has_masks else None
            nouns = [source.nouns[i] for i in index.tolist()]
            features = batch.features
            if len(rows) < len(batch.members):
                features = features[upload(rows, device)]
            labels = upload(source.labels[index], device)
            compute = self.graphs if self.graphs and len(batch.members) == 1 else self.gradients
            parts.append(compute(features, labels, masks, nouns, batch.total))
        if not masked.any():
            self._discard(self.masked_only)
        return parts

    def gradients(
        self,
        features: Tensor,
        labels: Tensor,
        masks: Tensor | None,
        nouns: Sequence[str],
        total: int,
    ) -> Tensor:
        """Add gradients of `Method.loss`, summed and divided by `total`; return that number []."""
        loss = self.method.loss(features, labels, masks, nouns).sum() / total
        self.scaler.scale(loss).backward()
        return loss.detach()

    def step(self, batch: Batch, loader: FeatureLoader) -> Callable[[], float]:
        """Make one step of the optimizers; return a function that gives its loss or raises.

        The loss is this rank's part of the step's mean; gradients are summed over ranks. Raises
        UserError if the loss is not finite: on a CPU here, before the optimizers move. A device
        that works through a queue is not waited for: call the function when the next step is in
        the queue.
        """
        parts = [read_later(part) for part in self.backward(batch, loader)]

        def loss() -> float:
            total = sum((part() for part in parts), 0.0)
            if not math.isfinite(total):
                raise UserError(f"the loss became {total}: {self.method.reason(batch.features)}")
            return total

        if not is_cuda(loader.device):
            loss()
        masked = float(loader.source.masked[batch.members].sum())
        (any_masked,) = loader.world.total([masked], loader.device)
        for name in self.method.stepped(bool(any_masked)):
            loader.world.sum_gradients(self.groups[name])
            self.scaler.unscale_(self.optimizers[name])
            self.scaler.step(self.optimizers[name])
        self.scaler.update()
        self._discard(self.groups)
        self.method.moved()  # on every rank, also one without an image in this step
        return loss

    def _discard(self, groups: Iterable[str]) -> None:
        """Discard the gradients of some groups."""
        for name in groups:
            self.optimizers[name].zero_grad()


def train(
    trainer: Trainer,
    loader: FeatureLoader,
    order: Sequence[int],
    description: str = "train",
    *,
    report: Report | None = None,
) -> float:
    """Train on the images of `order`, a batch a step; return the mean loss of an image.

    `description` names the progress bar; `report` gets the loss of every step.
    """
    total = 0.0
    steps = -(-len(order) // (loader.batch_size * loader.world.size))
    with progress(steps, description, "step", loader.world) as bar:
        for loss, images in losses_behind(trainer, loader, order):
            total += loss * images
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if report is not None:
                report(loss)
    (summed,) = loader.world.total([total], loader.device)
    return summed / len(order)


def losses_behind(
    trainer: Trainer, loader: FeatureLoader, order: Sequence[int]
) -> Iterator[tuple[float, int]]:
    """Yield the loss and the number of images of each step, when the next one has begun.

    A device is thus never without work while its numbers are read.
    """
    waiting: tuple[Callable[[], float], int] | None = None
    for batch in loader.batches(order):
        made = trainer.step(batch, loader), batch.total
        if waiting is not None:
            yield waiting[0](), waiting[1]
        waiting = made
    if waiting is not None:
        yield waiting[0](), waiting[1]


@torch.no_grad()
def build_memory(
    method: Method, loader: FeatureLoader, rows: Sequence[int], size: int | None = None
) -> list[Tensor]:
    """Build the memory bank of the given (normal) images: L times [M, E] of norm 1.

    `rows` are indices in the loader's image set; `size` of them are taken at a time. Empty for a
    method without a memory branch.
    """
    if not method.bank_levels:
        return []
    parts = [
        part
        for batch in loader.batches(rows, size)
        if len(batch.members)
        for _, part in loader.halving(method.bank, batch.features)
    ]
    # a rank may have none of few images
    parts = parts or [[torch.empty(0, method.embed_dim, device=loader.device)] * method.bank_levels]
    bank = [torch.cat(level) for level in zip(*parts, strict=True)]
    if loader.world.size == 1:
        return bank
    shares = loader.world.everyone([level.cpu() for level in bank])
    return [torch.cat(level).to(loader.device) for level in zip(*shares, strict=True)]


@torch.no_grad()
def predict(
    method: Method, loader: FeatureLoader, bank: Sequence[Tensor] | None, *, maps: bool = False
) -> Predictions:
    """Predict patch values and branch scores of a test set.

    bank: L times [M, E], None in zero-shot, where there is no memory branch. `maps` stores patch
    values where there are no masks, too.
    """
    source = loader.source
    predictions = Predictions(method.form, source.side, source.labels, [])
    capacity = loader.rank_images()
    method.prepare_scores()
    predictions.bank_bytes = sum(rows.nbytes for rows in bank or ())
    started = time.perf_counter()
    score = partial(method.score, bank=bank, maps=maps)
    with progress(capacity, "test", "image", loader.world) as bar:
        for batch in loader.batches():
            if not len(batch.members):
                continue
            for rows, scored in loader.halving(score, batch.features):
                predictions.members.extend(batch.members[rows].tolist())
                for name, values in scored.items():
                    predictions.append(name, values, capacity)
            bar.update(len(batch.members))
    synchronize(loader.device)
    predictions.seconds = time.perf_counter() - started
    return gather(predictions, loader, method.masks)

"""The loops of MVFA: train an epoch, fill the memory, predict (SPEC section 4). Prints nothing.

Letters: n images of a set, B of a batch, L levels, N patches, S image side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from CLIP.adapter import BRANCHES, MVFA
from errors import UserError
from loss import Objective
from mvfa import scoring
from mvfa.features import Batch, FeatureLoader

ADAM_BETAS = (0.5, 0.999)
LOSS_SCALE = 2.0**12  # at the start, where the backbone is float16

VALUES = ("logits", "distance", "text_scores", "memory_scores")  # the tensors of Predictions

Report = Callable[[float], None]


class Trainer:
    """Two Adam optimisers, seg and det, over the adapters of one model.

    `scaled`: the loss is scaled up before the backward pass and gradients down after it, since those of a float16
    backbone would vanish; a step whose gradients overflow is left out, and the scale falls.
    """

    def __init__(
        self,
        mvfa: MVFA,
        objective: Objective,
        rate: float,
        betas: tuple[float, float] = ADAM_BETAS,
        *,
        scaled: bool = False,
    ) -> None:
        self.mvfa, self.objective = mvfa, objective
        device = mvfa.visual.class_embedding.device
        self.scaler = torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=scaled)
        self.scaler.scale(
            torch.zeros((), device=device)
        )  # makes its scale, for a rank whose first step has no image
        self.optimisers = {
            b: torch.optim.Adam(mvfa.adapters(b).parameters(), lr=rate, betas=betas, fused=True)
            for b in BRANCHES
        }

    def loss(self, stream: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor) -> Tensor:
        """Loss of each image [B], from streams [B, 1 + N, D], labels [B], text [B, E, 2], masks [B, S, S] or None."""
        features = self.mvfa(stream, BRANCHES if masks is not None else ("det",))
        loss = self.objective.det(scoring.text_logits(features.det, text), labels)
        if masks is not None:
            loss = loss + self.objective.seg(scoring.text_logits(features.seg, text), masks)
        return loss

    def step(self, batch: Batch, streams: FeatureLoader, text: Mapping[str, Tensor]) -> float:
        """One step of both optimisers on the mean loss of a step's images; returns this rank's part of it.

        Images of objects without masks come first: what the seg adapters receive from them is discarded. Gradients are
        summed over ranks. Raises UserError if the loss is not finite.
        """
        source, world, total = streams.source, streams.world, 0.0
        masked = source.masked[batch.members]
        for has_masks in (False, True):
            rows = (masked == has_masks).nonzero().squeeze(1)
            if not len(rows):
                continue
            index = batch.members[rows]
            self.optimisers["seg"].zero_grad()
            masks = streams.masks(index.tolist()).to(streams.device) if has_masks else None
            sentences = torch.stack([text[source.nouns[i]] for i in index.tolist()])
            stream = batch.stream[rows.to(streams.device)]
            losses = self.loss(stream, source.labels[index].to(streams.device), masks, sentences)
            loss = losses.sum() / batch.total
            self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise UserError(
                f"the loss became {total}; lower --learning_rate or use --precision fp32"
            )
        if not masked.any():
            self.optimisers["seg"].zero_grad()
        (any_masked,) = world.total([float(masked.sum())], streams.device)
        for branch in BRANCHES if any_masked else ("det",):
            world.sum_gradients(self.mvfa.adapters(branch).parameters())
            self.scaler.unscale_(self.optimisers[branch])
            self.scaler.step(self.optimisers[branch])
        self.scaler.update()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
        return total


def train(
    trainer: Trainer,
    streams: FeatureLoader,
    text: Mapping[str, Tensor],
    order: Sequence[int],
    report: Report | None = None,
) -> float:
    """Train on the images of `order`, a batch a step; returns the mean loss of an image. `report` gets every loss."""
    total = 0.0
    for batch in streams.batches(order):
        loss = trainer.step(batch, streams, text)
        total += loss * batch.total
        if report is not None:
            report(loss)
    (summed,) = streams.world.total([total], streams.device)
    return summed / len(order)


@torch.no_grad()
def build_memory(
    mvfa: MVFA,
    streams: FeatureLoader,
    rows: Sequence[int],
    branch: str,
    class_token: bool = True,
    size: int | None = None,
) -> list[Tensor]:
    """Memory bank of the given (normal) images, `size` of them at a time: L times [M, E] of norm 1."""
    parts = [mvfa(batch.stream, (branch,)) for batch in streams.batches(rows, size)]
    tokens = [
        torch.cat(level) for level in zip(*(getattr(part, branch) for part in parts), strict=True)
    ]
    bank = scoring.normalise_bank(tokens, class_token)
    if streams.world.size == 1:
        return bank
    shares = streams.world.everyone([level.cpu() for level in bank])
    return [torch.cat(level).to(streams.device) for level in zip(*shares, strict=True)]


@dataclass(frozen=True)
class ScoreForm:
    """How features become scores; the defaults are the released code's."""

    image_score: str = "mean"  # over patches; "max" is the paper's
    level_reduction: str = "sum"  # or "mean"
    levels: tuple[
        int, ...
    ] = ()  # the blocks whose features are scored; none: all that have adapters


@dataclass
class Predictions:
    """Patch-level values of a test set, from which maps of any size are made again, in the order of `members`.

    logits [n, L, N] and distance [n, N] only where the object has masks or maps were asked for; text_scores and
    memory_scores [n].
    """

    form: ScoreForm
    masks: bool
    members: list[int] = field(default_factory=list)
    logits: Tensor | None = None
    distance: Tensor | None = None
    text_scores: Tensor | None = None
    memory_scores: Tensor | None = None

    def put(self, name: str, values: Tensor, capacity: int) -> None:
        """Put values [B, ...] behind those that are there; all memory is taken at once, for `capacity` images.

        Small tensors that stay between large ones that go would tear the heap to gigabytes.
        """
        if getattr(self, name) is None:
            setattr(self, name, values.new_empty(capacity, *values.shape[1:]))
        end = len(self.members)
        getattr(self, name)[end - len(values) : end] = values


@torch.no_grad()
def predict(
    mvfa: MVFA,
    streams: FeatureLoader,
    text: Tensor,
    bank: list[Tensor] | None,
    *,
    masks: bool,
    form: ScoreForm,
    maps: bool = False,
    report: Report | None = None,
) -> Predictions:
    """Patch values and branch scores of a test set. text [E, 2]; without a bank (zero-shot) there is no memory branch.

    With masks the maps and the bank are of seg tokens, else of det tokens; the text score is always of det tokens.
    `maps` keeps patch values where there are no masks, too.
    """
    found, side = Predictions(form, masks), streams.source.side
    fused_map = (
        masks and bank is not None and form.image_score == "mean"
    )  # the image score is the map's maximum
    branches = [b for b, used in zip(BRANCHES, (masks, not fused_map), strict=True) if used]
    capacity, levels = (
        streams.share(),
        [mvfa.levels.index(block) for block in form.levels or mvfa.levels],
    )
    bank = None if bank is None else [bank[level] for level in levels]
    for batch in streams.batches():
        if not len(batch.members):
            continue
        found.members.extend(batch.members.tolist())
        seg, det = (
            [t[level] for level in levels] if t else [] for t in mvfa(batch.stream, branches)
        )
        mapped = seg if masks else det
        if masks or maps:
            found.put("logits", scoring.text_logits(mapped, text), capacity)
        if not fused_map:
            probability = scoring.image_score(
                scoring.text_logits(det, text).sigmoid(), form.image_score
            )  # [B, L]
            found.put(
                "text_scores", scoring.over_levels(probability, form.level_reduction), capacity
            )
        if bank is not None:
            distance = scoring.memory_distance(mapped, bank, form.level_reduction)
            if masks or maps:
                found.put("distance", distance, capacity)
            if not fused_map:
                pooled = (
                    distance
                    if form.image_score == "max"
                    else scoring.memory_map(distance, side).flatten(1)
                )
                found.put("memory_scores", scoring.image_score(pooled, form.image_score), capacity)
        if report is not None:
            report(len(batch.members))
    return found


def gather(found: Predictions, streams: FeatureLoader) -> Predictions:
    """The predictions and masks of all ranks at the first one, in the order of the set; elsewhere this rank's own."""
    if streams.world.size == 1:
        return found
    mine = {name: getattr(found, name).cpu() for name in VALUES if getattr(found, name) is not None}
    shares = streams.world.collect((found.members, mine, streams.known_masks))
    if shares is None:
        return found
    members = [member for share, _, _ in shares for member in share]
    order, together = (
        torch.tensor(members).argsort(),
        Predictions(found.form, found.masks, sorted(members)),
    )
    for name in VALUES:
        parts = [values[name] for _, values, _ in shares if name in values]
        if parts:
            setattr(together, name, torch.cat(parts)[order].to(streams.device))
    for _, _, masks in shares:
        streams.known_masks.update(masks)
    return together

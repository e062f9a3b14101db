"""The loops of MVFA: train an epoch, build the memory bank, predict (SPEC section 4).

Letters: n images of a set, B images of a batch, L levels, N patches, D vision width, E text width,
S image side, M rows of the memory bank.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from CLIP.adapter import HEADS, MVFA
from errors import UserError
from loss import Objective
from mvfa import scoring
from mvfa.console import progress
from mvfa.features import Batch, FeatureLoader
from mvfa.predictions import Predictions, ScoreForm, gather

ADAM_BETAS = (0.5, 0.999)
LOSS_SCALE = 2.0**12  # at the start, where the backbone is float16

Report = Callable[[float], object]


class Trainer:
    """Two Adam optimizers, seg and det, over the adapters of one model.

    `objective` is the loss, `rate` Adam's learning rate, `precision` the backbone's. With "fp16"
    the loss is scaled up before the backward pass and gradients down after it, since small
    gradients would vanish; a step whose gradients overflow is left out, and the scale is reduced.
    """

    def __init__(
        self,
        mvfa: MVFA,
        objective: Objective,
        rate: float,
        precision: str = "fp32",
        betas: tuple[float, float] = ADAM_BETAS,
    ) -> None:
        self.mvfa = mvfa
        self.objective = objective
        device = mvfa.visual.class_embedding.device
        self.scaler = torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=precision == "fp16")
        # creates the scale, for a rank whose first step has no image
        self.scaler.scale(torch.zeros((), device=device))
        self.optimizers = {
            head: torch.optim.Adam(
                mvfa.adapters(head).parameters(), lr=rate, betas=betas, fused=True
            )
            for head in HEADS
        }

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts of both optimizers on the CPU, by head.index.name."""
        return {
            f"{head}.{index}.{name}": value.detach().cpu()
            for head, optimizer in self.optimizers.items()
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Put back `optimizer_tensors` and the scaler's state, for the next step."""
        for head, optimizer in self.optimizers.items():
            content = optimizer.state_dict()
            content["state"] = {}
            for name, value in tensors.items():
                owner, index, entry = name.split(".")
                if owner == head:
                    content["state"].setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict(content)
        self.scaler.load_state_dict(scaler)

    def loss(self, features: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor) -> Tensor:
        """Return the loss of each image [B].

        features [B, 1 + N, D], labels [B], text [B, E, 2]; masks [B, S, S], or None for objects
        without masks, which have no seg loss.
        """
        tokens = self.mvfa(features, HEADS if masks is not None else ("det",))
        loss = self.objective.det(scoring.text_logits(tokens.det, text), labels)
        if masks is not None:
            loss = loss + self.objective.seg(scoring.text_logits(tokens.seg, text), masks)
        return loss

    def backward(self, batch: Batch, loader: FeatureLoader, text: Mapping[str, Tensor]) -> float:
        """Add up gradients of the mean loss of a step's images; return this rank's part of it.

        Images of objects without masks come first: what the seg adapters receive from them is
        discarded.
        """
        source = loader.source
        masked = source.masked[batch.members]
        total = 0.0
        for has_masks in (False, True):
            rows = (masked == has_masks).nonzero().squeeze(1)
            if not len(rows):
                continue
            index = batch.members[rows]
            self.optimizers["seg"].zero_grad()
            masks = loader.masks(index.tolist()).to(loader.device) if has_masks else None
            sentences = torch.stack([text[source.nouns[i]] for i in index.tolist()])
            features = batch.features[rows.to(loader.device)]
            losses = self.loss(features, source.labels[index].to(loader.device), masks, sentences)
            loss = losses.sum() / batch.total
            self.scaler.scale(loss).backward()
            total += loss.item()
        if not masked.any():
            self.optimizers["seg"].zero_grad()
        return total

    def reason(self, batch: Batch, text: Mapping[str, Tensor]) -> str:
        """Return why the loss of a step is not finite, and what to do."""
        other = "use --precision fp32, or other weights (--clip_path)"
        if not all(features.isfinite().all() for features in text.values()):
            return f"the text features are not finite; {other}"
        if not batch.features.isfinite().all():
            return f"the features of images are not finite; {other}"
        heads = [self.mvfa.adapters(head).parameters() for head in HEADS]
        if not all(values.isfinite().all() for head in heads for values in head):
            return "the adapters are not finite; lower --learning_rate"
        return "lower --learning_rate or use --precision fp32"

    def step(self, batch: Batch, loader: FeatureLoader, text: Mapping[str, Tensor]) -> float:
        """Make one step of both optimizers; return this rank's part of the step's mean loss.

        `text` holds the text features [E, 2] of every noun. Gradients are summed over ranks. Raises
        UserError if the loss is not finite.
        """
        total = self.backward(batch, loader, text)
        if not math.isfinite(total):
            raise UserError(f"the loss became {total}: {self.reason(batch, text)}")
        masked = float(loader.source.masked[batch.members].sum())
        (any_masked,) = loader.world.total([masked], loader.device)
        for head in HEADS if any_masked else ("det",):
            loader.world.sum_gradients(self.mvfa.adapters(head).parameters())
            self.scaler.unscale_(self.optimizers[head])
            self.scaler.step(self.optimizers[head])
        self.scaler.update()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return total


def train(
    trainer: Trainer,
    loader: FeatureLoader,
    text: Mapping[str, Tensor],
    order: Sequence[int],
    description: str = "train",
    *,
    report: Report | None = None,
) -> float:
    """Train on the images of `order`, a batch a step; return the mean loss of an image.

    `text` holds the text features [E, 2] of every noun; `description` names the progress bar;
    `report` gets the loss of every step.
    """
    total = 0.0
    steps = -(-len(order) // (loader.batch_size * loader.world.size))
    with progress(steps, description, "step", loader.world) as bar:
        for batch in loader.batches(order):
            loss = trainer.step(batch, loader, text)
            total += loss * batch.total
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if report is not None:
                report(loss)
    (summed,) = loader.world.total([total], loader.device)
    return summed / len(order)


@torch.no_grad()
def build_memory(
    mvfa: MVFA,
    loader: FeatureLoader,
    rows: Sequence[int],
    *,
    masks: bool,
    class_token: bool,
    size: int | None = None,
) -> list[Tensor]:
    """Build the memory bank of the given (normal) images: L times [M, E] of norm 1.

    `rows` are indices in the loader's image set; `size` of them are taken at a time. Tokens are
    those of the seg head for objects with `masks`, else of the det head; with `class_token` the
    bank holds class tokens beside patches.
    """
    head = "seg" if masks else "det"
    tokens = partial(mvfa, heads=(head,))
    parts = [
        part
        for batch in loader.batches(rows, size)
        for _, part in loader.halving(tokens, batch.features)
    ]
    levels = zip(*(getattr(part, head) for part in parts), strict=True)
    bank = scoring.normalise_bank([torch.cat(level) for level in levels], class_token)
    if loader.world.size == 1:
        return bank
    shares = loader.world.everyone([level.cpu() for level in bank])
    return [torch.cat(level).to(loader.device) for level in zip(*shares, strict=True)]


@torch.no_grad()
def score_batch(
    mvfa: MVFA,
    features: Tensor,
    text: Tensor,
    bank: Sequence[Tensor] | None,
    *,
    masks: bool,
    form: ScoreForm,
    side: int,
    maps: bool = False,
) -> dict[str, Tensor]:
    """Return the patch values and branch scores of a batch, by their names in Predictions.

    features [B, 1 + N, D], text [E, 2]; bank: a list of [M, E], one a scored level, None in
    zero-shot; side: S. See `predict` for the others.
    """
    values: dict[str, Tensor] = {}
    # few-shot with masks: the image score is the maximum of the fused map
    fused_map = masks and bank is not None and form.image_score == "mean"
    heads = [head for head, used in (("seg", masks), ("det", not fused_map)) if used]
    tokens = mvfa(features, heads)
    levels = scored_levels(mvfa, form)
    seg = [tokens.seg[level] for level in levels] if tokens.seg else []
    det = [tokens.det[level] for level in levels] if tokens.det else []
    mapped = seg if masks else det
    if masks or maps:
        values["logits"] = scoring.text_logits(mapped, text)  # [B, L, N]
    if not fused_map:
        probability = scoring.text_logits(det, text).sigmoid()  # [B, L, N]
        pooled = scoring.image_score(probability, form.image_score)  # [B, L]
        values["text_scores"] = scoring.over_levels(pooled, form.level_reduction)  # [B]
    if bank is not None:
        distance = scoring.memory_distance(mapped, bank, form.level_reduction)  # [B, N]
        if masks or maps:
            values["distance"] = distance
        if not fused_map:
            values["memory_scores"] = memory_scores(distance, form.image_score, side)
    return values


def scored_levels(mvfa: MVFA, form: ScoreForm) -> list[int]:
    """Return the positions, among the model's levels, of those whose features are scored."""
    return [mvfa.levels.index(block) for block in form.levels or mvfa.levels]


@torch.no_grad()
def predict(
    mvfa: MVFA,
    loader: FeatureLoader,
    text: Tensor,
    bank: list[Tensor] | None,
    *,
    masks: bool,
    form: ScoreForm,
    maps: bool = False,
) -> Predictions:
    """Predict patch values and branch scores of a test set.

    text [E, 2]; bank: L times [M, E], None in zero-shot, where there is no memory branch. With
    `masks` the maps and the bank are of seg tokens, else of det tokens; the text score is always of
    det tokens. `maps` stores patch values where there are no masks, too.
    """
    source = loader.source
    predictions = Predictions(form, source.side, source.labels, [])
    capacity = loader.rank_images()
    bank = None if bank is None else [bank[level] for level in scored_levels(mvfa, form)]
    score = partial(
        score_batch, mvfa, text=text, bank=bank, masks=masks, form=form, side=source.side, maps=maps
    )
    with progress(capacity, "test", "image", loader.world) as bar:
        for batch in loader.batches():
            if not len(batch.members):
                continue
            for rows, scored in loader.halving(score, batch.features):
                predictions.members.extend(batch.members[rows].tolist())
                for name, values in scored.items():
                    predictions.append(name, values, capacity)
            bar.update(len(batch.members))
    return gather(predictions, loader, masks)


def memory_scores(distance: Tensor, pool: str, side: int) -> Tensor:
    """Return memory scores [B] of distances [B, N]: their maximum, or the mean of the map."""
    if pool == "max":
        return scoring.image_score(distance, pool)
    return scoring.image_score(scoring.memory_map(distance, side).flatten(1), pool)

"""Patch values of a test set, from which maps and scores are made (SPEC section 4).

Letters: n images of a set, B images of a batch, L levels, N patches, S image side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.items import joined, padded, unpack_masks
from mvfa.accelerator import has_float64
from mvfa.features import FeatureLoader
from mvfa.score_form import ScoreForm

PATCH_VALUES = (  # tensors of Predictions
    *("logits", "distance", "sizes"),
    *("text_scores", "memory_scores"),
)


@dataclass
class Predictions:
    """Patch values of a test set of n images, from which maps of any size can be made.

    labels [n]; masks: packed masks of the images, None where the object has none. logits [n, L, N]
    and distance [n, N] only where there are masks or maps were asked for; text_scores and
    memory_scores [n] where the image score is not the maximum of the fused map. A branch that the
    method does not have has neither. sizes [n, 2] of images whose aspect is kept: then N is the
    most patches of one. At the first rank they cover the set in its order, at the others only the
    rank's own images, `members`. seconds: what this rank took; bank_bytes: of the memory bank.
    """

    form: ScoreForm
    side: int
    labels: Tensor
    members: list[int]
    masks: list[bytes] | None = None
    logits: Tensor | None = None
    distance: Tensor | None = None
    sizes: Tensor | None = None
    text_scores: Tensor | None = None
    memory_scores: Tensor | None = None
    seconds: float = 0.0
    bank_bytes: int = 0

    @property
    def has_scores(self) -> bool:
        """Whether images have scores of their own; else these are the maxima of their maps."""
        return self.text_scores is not None or self.memory_scores is not None

    def append(self, name: str, values: Tensor, capacity: int) -> None:
        """Append values [B, ...] of the images that were added to `members` last.

        All memory is taken at once, for `capacity` images: small long-lived tensors between large
        short-lived ones fragment the heap (measured: gigabytes).
        """
        if not has_float64(values.device):  # which metrics need
            values = values.cpu()
        stored = getattr(self, name)
        if stored is None:
            stored = values.new_empty(capacity, *values.shape[1:])
        values = padded(values, stored.shape[1:])
        stored = padded(stored, values.shape[1:])
        end = len(self.members)
        stored[end - len(values) : end] = values
        setattr(self, name, stored)

    def block_masks(self, block: slice) -> Tensor:
        """Return the masks [B, S, S] bool of some images."""
        assert self.masks is not None, "an object without masks"
        return unpack_masks(self.masks[block], self.side)


def gather(predictions: Predictions, loader: FeatureLoader, masks: bool) -> Predictions:
    """Return the predictions and masks of all ranks at the first one, in the order of the set.

    Elsewhere return the rank's own.
    """
    packed = dict(loader.packed_masks)
    if loader.world.size > 1:
        values = {
            name: getattr(predictions, name).cpu()
            for name in PATCH_VALUES
            if getattr(predictions, name) is not None
        }
        shares = loader.world.collect((predictions.members, values, packed))
        if shares is None:
            return predictions
        members = [member for own, _, _ in shares for member in own]
        order = torch.tensor(members).argsort()
        predictions.members = sorted(members)
        for name in PATCH_VALUES:
            parts = [own[name] for _, own, _ in shares if name in own]
            if parts:
                setattr(predictions, name, joined(parts)[order].to(loader.device))
        for _, _, own_masks in shares:
            packed.update(own_masks)
    if masks:
        predictions.masks = [packed[i] for i in range(len(loader))]
    return predictions

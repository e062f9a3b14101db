"""Patch values of a test set, from which maps and scores are made (SPEC section 4).

Letters: n images of a set, B images of a batch, L levels, N patches, S image side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.items import unpack_masks
from mvfa.features import FeatureLoader

PATCH_VALUES = ("logits", "distance", "text_scores", "memory_scores")  # tensors of Predictions


@dataclass(frozen=True)
class ScoreForm:
    """How features become scores.

    image_score: "mean" or "max" over patches; level_reduction: "sum" or "mean" over levels;
    levels: the blocks whose features are scored, all with adapters if empty.
    """

    image_score: str
    level_reduction: str
    levels: tuple[int, ...] = ()


@dataclass
class Predictions:
    """Patch values of a test set of n images, from which maps of any size can be made.

    labels [n]; masks: packed masks of the images, None where the object has none. logits [n, L, N]
    and distance [n, N] only where there are masks or maps were asked for; text_scores and
    memory_scores [n] where the image score is not the maximum of the fused map. At the first rank
    they cover the set in its order, at the others only the rank's own images, `members`.
    """

    form: ScoreForm
    side: int
    labels: Tensor
    members: list[int]
    masks: list[bytes] | None = None
    logits: Tensor | None = None
    distance: Tensor | None = None
    text_scores: Tensor | None = None
    memory_scores: Tensor | None = None

    def append(self, name: str, values: Tensor, capacity: int) -> None:
        """Append values [B, ...] of the images that were added to `members` last.

        All memory is taken at once, for `capacity` images: small long-lived tensors between large
        short-lived ones fragment the heap (measured: gigabytes).
        """
        if values.device.type == "mps":  # has no float64, which metrics need
            values = values.cpu()
        if getattr(self, name) is None:
            setattr(self, name, values.new_empty(capacity, *values.shape[1:]))
        end = len(self.members)
        getattr(self, name)[end - len(values) : end] = values

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
                setattr(predictions, name, torch.cat(parts)[order].to(loader.device))
        for _, _, own_masks in shares:
            packed.update(own_masks)
    if masks:
        predictions.masks = [packed[i] for i in range(len(loader))]
    return predictions

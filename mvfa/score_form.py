"""How patch values become maps and scores (SPEC section 4).

Letters: B images, L levels, N patches, S image side.
"""

from dataclasses import dataclass

from torch import Tensor

from mvfa import scoring


@dataclass(frozen=True)
class ScoreForm:
    """How features become scores.

    image_score: "mean" or "max" over patches; level_reduction: "sum" or "mean" over levels;
    levels: the blocks whose features are scored, all with adapters if empty.
    """

    image_score: str
    level_reduction: str
    levels: tuple[int, ...] = ()

    def text_map(self, logits: Tensor, side: int) -> Tensor:
        """Return the maps of the text branch: [B, L, N] -> [B, S, S], S = `side`."""
        return scoring.text_map(logits, side, self.level_reduction)

    def memory_map(self, distance: Tensor, sizes: Tensor | None, side: int) -> Tensor:
        """Return the maps of the memory branch: [B, N] -> [B, S, S], S = `side`.

        sizes [B, 2]: height and width of the images, for methods that keep their aspect.
        """
        return scoring.memory_map(distance, side)

    def memory_score(self, distance: Tensor, sizes: Tensor | None, side: int) -> Tensor:
        """Return the image scores of the memory branch: [B, N] -> [B]; see `memory_map`."""
        return scoring.memory_scores(distance, self.image_score, side)

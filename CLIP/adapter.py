"""Adapters in the visual stream (SPEC section 3).

Letters: B images, N patches, D vision width, E joint width, L levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.model import VisionTransformer
from errors import UserError

BRANCHES = ("seg", "det")


@dataclass(frozen=True)
class AdapterForm:
    """How the adapters read the stream and mix into it; the defaults are the released code's."""

    keep: float = 0.8  # share of the stream itself
    mix: float = 0.1  # share of each of the two branches; the three sum to 1
    slope: float = 0.01  # of the leaky ReLU; 0 is a ReLU
    projector: str = (
        "none"  # "last": at the last level a plain projection; "all": at every level (Table 4)
    )

    def is_projector(self, level: int, levels: int) -> bool:
        """Whether level number `level` of `levels` is a plain projection that leaves the stream as it is."""
        return self.projector == "all" or (self.projector == "last" and level == levels - 1)


class Adapter(nn.Module):
    """t = act(x W1), y = act(t W2): token features [.., E] and what goes back into the stream [.., D]."""

    def __init__(
        self, width: int, bottleneck: int, slope: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.slope = slope
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False, device="meta"))
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False, device="meta"))
        for layer, shape in ((self.fc1, (bottleneck, width)), (self.fc2, (width, bottleneck))):
            weight = torch.empty(shape)
            nn.init.kaiming_uniform_(
                weight, a=math.sqrt(5), generator=generator
            )  # the default of nn.Linear
            layer[0].weight = nn.Parameter(weight)

    def tokens(self, x: Tensor, projector: bool = False) -> Tensor:
        """Token features t: x [B, 1 + N, D] -> [B, 1 + N, E]."""
        t = self.fc1(x)
        return t if projector else F.leaky_relu(t, self.slope)

    def back(self, t: Tensor) -> Tensor:
        """What the stream gets: t [B, 1 + N, E] -> [B, 1 + N, D]."""
        return F.leaky_relu(self.fc2(t), self.slope)


class TokenFeatures(NamedTuple):
    """Token features of each level, class token first: lists of L tensors [B, 1 + N, E]; empty if not asked for."""

    seg: list[Tensor]
    det: list[Tensor]


class MVFA(nn.Module):
    """The frozen vision tower with two trainable adapters, seg and det, after each of the given blocks (levels).

    `stem` is the part before the first adapter, the same in every epoch; `forward` is the rest.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        embed_dim: int,
        levels: Sequence[int] = (6, 12, 18, 24),
        form: AdapterForm | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """`generator` draws the adapters' start as nn.Linear does: seg before det, level by level."""
        super().__init__()
        if (
            not levels
            or sorted(set(levels)) != list(levels)
            or not 1 <= levels[0] <= levels[-1] <= visual.layers
        ):
            got = " ".join(map(str, levels))
            raise UserError(
                f"--features_list {got}: allowed are rising block numbers from 1 to {visual.layers}"
            )
        self.visual, self.levels, self.form = visual, tuple(levels), form or AdapterForm()
        self.embed_dim = embed_dim
        slope, device = self.form.slope, visual.class_embedding.device
        for branch in BRANCHES:
            adapters = [Adapter(visual.width, embed_dim, slope, generator) for _ in levels]
            setattr(self, f"{branch}_adapters", nn.ModuleList(adapters).to(device))

    def adapters(self, branch: str) -> nn.ModuleList:
        """The adapters of a branch, one a level."""
        return getattr(self, f"{branch}_adapters")

    @torch.no_grad()
    def stem(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] float32, as the recipe scales them -> stream before the first adapter [B, 1 + N, D]."""
        return self.visual.transformer(self.visual.embed(images), last=self.levels[0])

    def forward(self, stream: Tensor, branches: Sequence[str] = BRANCHES) -> TokenFeatures:
        """Token features of the given branches, from the stream [B, 1 + N, D] that `stem` gives."""
        features = TokenFeatures([], [])
        for level, block in enumerate(self.levels):
            last = level == len(self.levels) - 1
            projector = self.form.is_projector(level, len(self.levels))
            back = []
            for branch in BRANCHES:
                if last and branch not in branches:
                    continue  # nothing reads it
                adapter = cast(Adapter, self.adapters(branch)[level])
                tokens = adapter.tokens(stream, projector)  # [B, 1 + N, E]
                if branch in branches:
                    getattr(features, branch).append(tokens)
                if not (last or projector):
                    back.append(adapter.back(tokens))
            if last:
                break
            if back:
                stream = self.form.keep * stream + self.form.mix * (back[0] + back[1])
            stream = self.visual.transformer(stream, block, self.levels[level + 1])
        return features

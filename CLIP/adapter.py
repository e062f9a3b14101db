"""Adapters of the vision tower (SPEC section 3).

Letters: B images, N patches, D vision width, E joint width, L levels, S image side in pixels.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.model import VisionTransformer
from errors import UserError

HEADS = ("seg", "det")  # the two adapter sets: pixel scores, image scores


@dataclass(frozen=True)
class AdapterForm:
    """How adapters read the hidden tokens x and are mixed back: x <- keep x + mix (y_seg + y_det).

    Args:
        keep: weight of the hidden tokens themselves.
        mix: weight of each head's output; keep + 2 mix = 1.
        slope: negative slope of the leaky ReLU; 0 is a ReLU.
        projector: levels with a linear projector instead of an adapter: "none", "last" or "all"
            (Table 4 of the paper). A projector gives token features and leaves x unchanged.

    """

    keep: float
    mix: float
    slope: float
    projector: str

    def is_projector(self, level: int, levels: int) -> bool:
        """Return whether level number `level` (from 0) of `levels` is a projector."""
        return self.projector == "all" or (self.projector == "last" and level == levels - 1)


class Adapter(nn.Module):
    """Two linear layers without bias: t = act(x W1), y = act(t W2).

    Args:
        width: D, of the hidden tokens x.
        bottleneck: E, of the token features t.
        slope: negative slope of the activation, a leaky ReLU.
        generator: draws the initial weights as nn.Linear does; None: torch's global generator.

    """

    def __init__(
        self, width: int, bottleneck: int, slope: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.slope = slope
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False, device="meta"))
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False, device="meta"))
        for layer, shape in ((self.fc1, (bottleneck, width)), (self.fc2, (width, bottleneck))):
            weight = torch.empty(shape)
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)  # as nn.Linear
            layer[0].weight = nn.Parameter(weight)

    def tokens(self, x: Tensor, projector: bool = False) -> Tensor:
        """Compute token features t from hidden tokens x: [B, 1 + N, D] -> [B, 1 + N, E].

        As a projector the activation is left out.
        """
        t = self.fc1(x)
        return t if projector else F.leaky_relu(t, self.slope)

    def back(self, t: Tensor) -> Tensor:
        """Compute what is mixed into the hidden tokens: [B, 1 + N, E] -> [B, 1 + N, D]."""
        return F.leaky_relu(self.fc2(t), self.slope)


class TokenFeatures(NamedTuple):
    """Token features of each level, class token first: L tensors [B, 1 + N, E] per head.

    The list of a head that was not asked for is empty.
    """

    seg: list[Tensor]
    det: list[Tensor]


class MVFA(nn.Module):
    """The frozen vision tower with two trainable adapters, seg and det, after each level.

    `stem` is the part before the first adapter, which training does not change; `forward` is the
    rest.

    Args:
        visual: the vision tower. Its weights get no gradient.
        embed_dim: E, the width of the token features, which is that of the text features.
        levels: numbers of the blocks that adapters follow, rising, counted from 1.
        form: how the adapters read and mix.
        generator: draws the initial adapters as nn.Linear does, seg before det, level by level;
            None: torch's global generator.

    """

    def __init__(
        self,
        visual: VisionTransformer,
        embed_dim: int,
        levels: Sequence[int],
        form: AdapterForm,
        generator: torch.Generator | None = None,
    ) -> None:
        """Raise UserError if the levels are not rising block numbers of the tower."""
        super().__init__()
        check_levels(levels, visual.layers)
        self.visual = visual
        self.levels = tuple(levels)
        self.form = form
        self.embed_dim = embed_dim
        for head in HEADS:
            adapters = [Adapter(visual.width, embed_dim, form.slope, generator) for _ in levels]
            modules = nn.ModuleList(adapters).to(visual.class_embedding.device)
            setattr(self, f"{head}_adapters", modules)

    def adapters(self, head: str) -> nn.ModuleList:
        """Return the adapters of a head, one per level."""
        return getattr(self, f"{head}_adapters")

    def products(self) -> AbstractContextManager[object]:
        """Return a context in which adapters multiply as the blocks do on a GPU.

        Their weights stay in float32, and on a CPU so do their products.
        """
        if not self.visual.half_on_gpu:
            return nullcontext()
        device = self.visual.class_embedding.device.type
        return torch.autocast(device, self.visual.dtype, cache_enabled=False)

    @torch.no_grad()
    def stem(self, images: Tensor) -> Tensor:
        """Compute the features before the first adapter: [B, 3, S, S] -> [B, 1 + N, D] float32.

        `images` are float32, scaled as the recipe says (released code: in [0, 1]).
        """
        return self.visual.transformer(self.visual.embed(images), last=self.levels[0])

    def forward(self, features: Tensor, heads: Sequence[str] = HEADS) -> TokenFeatures:
        """Compute the token features of the given heads from what `stem` returns, [B, 1 + N, D]."""
        token_features = TokenFeatures([], [])
        x = features  # hidden tokens
        for level, block in enumerate(self.levels):
            last = level == len(self.levels) - 1
            projector = self.form.is_projector(level, len(self.levels))
            outputs = []  # of the two heads, each [B, 1 + N, D]
            for head in HEADS:
                if last and head not in heads:
                    continue  # its output is neither returned nor mixed into x
                adapter = cast(Adapter, self.adapters(head)[level])
                with self.products():
                    t = adapter.tokens(x, projector)  # [B, 1 + N, E]
                    if not (last or projector):
                        outputs.append(adapter.back(t))
                if head in heads:
                    getattr(token_features, head).append(t)
            if last:
                break
            if outputs:
                x = self.form.keep * x + self.form.mix * (outputs[0] + outputs[1])
            x = self.visual.transformer(x, block, self.levels[level + 1])
        return token_features


def check_levels(levels: Sequence[int], layers: int) -> None:
    """Raise UserError unless levels are rising block numbers from 1 to `layers`."""
    rising = sorted(set(levels)) == list(levels)
    if not levels or not rising or levels[0] < 1 or levels[-1] > layers:
        given = " ".join(map(str, levels))
        raise UserError(
            f"--features_list {given}: allowed are rising block numbers from 1 to {layers}"
        )

"""The baseline's network: both towers and the adapters, written plainly (SPEC sections 2 and 3).

Letters: B images or sentences, T tokens (1 + N), N patches, P patches per side, G of the published
grid, D vision width, E joint width, L levels, S image side in pixels.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.model import ClipConfig, Tower
from CLIP.weights import infer_config, read_state


class Block(nn.Module):
    """A pre-norm block over [T, B, D] that also returns its attention maps [B, heads, T, T]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", nn.GELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the hidden tokens after this block, [T, B, D], and the attention maps."""
        y = self.ln_1(x)
        mixed, maps = self.attn(
            y, y, y, need_weights=True, average_attn_weights=False, attn_mask=mask
        )
        x = x + mixed
        return x + self.mlp(self.ln_2(x)), maps


class Transformer(nn.Module):
    """Blocks, under the published names."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(tower.width, tower.heads) for _ in range(tower.layers))


class Vision(nn.Module):
    """The parts of the vision tower, under the published names."""

    def __init__(self, config: ClipConfig, grid: int) -> None:
        super().__init__()
        width = config.vision.width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(grid * grid + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(config.vision)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, config.embed_dim))


class Network(nn.Module):
    """Both towers with random weights; every parameter requires a gradient."""

    def __init__(self, config: ClipConfig, grid: int) -> None:
        super().__init__()
        width = config.text.width
        self.config = config
        self.visual = Vision(config, grid)
        self.transformer = Transformer(config.text)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids: [B, context length] -> features [B, E]."""
        mask = torch.full((tokens.shape[1],) * 2, -math.inf, device=tokens.device).triu(1)
        x = (self.token_embedding(tokens) + self.positional_embedding).transpose(0, 1)  # [T, B, D]
        for block in self.transformer.resblocks:
            x, _ = block(x, mask)
        x = self.ln_final(x.transpose(0, 1))  # [B, T, D]
        return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ self.text_projection


class Adapter(nn.Module):
    """Two linear layers without bias, each followed by a leaky ReLU."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute token features [T, 1, E] and the output [T, 1, D] from x [T, 1, D]."""
        t = self.fc1(x)
        return t, self.fc2(t)


class Model(nn.Module):
    """The network with its adapters."""

    def __init__(self, network: Network, levels: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.levels = list(levels)
        width = network.config.vision.width
        bottleneck = network.config.embed_dim
        self.seg_adapters = nn.ModuleList(Adapter(width, bottleneck) for _ in levels)
        self.det_adapters = nn.ModuleList(Adapter(width, bottleneck) for _ in levels)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.network.logit_scale.device

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context of half precision on CUDA, as in the released code."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Compute everything the released code's forward returns, for an image [1, 3, S, S].

        Pooled features [1, E], seg and det token features (L times [1 + N, E]), attention maps.
        """
        visual = self.network.visual
        x = visual.conv1(image).flatten(2).transpose(1, 2)  # [1, N, D]
        x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1)  # [1, T, D]
        x = visual.ln_pre(x + visual.positional_embedding).transpose(0, 1)  # [T, 1, D]
        seg = []
        det = []
        maps = []
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            x, attention = block(x)
            maps.append(attention)
            if number in self.levels:
                level = self.levels.index(number)
                seg_tokens, seg_out = self.seg_adapters[level](x)
                det_tokens, det_out = self.det_adapters[level](x)
                x = 0.8 * x + 0.1 * seg_out + 0.1 * det_out
                seg.append(seg_tokens[:, 0])
                det.append(det_tokens[:, 0])
        return visual.ln_post(x[0]) @ visual.proj, seg, det, maps


def load(path: Path, image_size: int, levels: Sequence[int], device: str, seed: int) -> Model:
    """Load weights into a network of the published size, then into one for the image side.

    Both networks draw random weights first. The adapters, and what torch draws afterwards, follow
    from `seed`, as in the program.
    """
    file_state = read_state(path)
    config = infer_config(file_state)
    published = Network(config, config.grid)
    published.load_state_dict({name: value.float() for name, value in file_state.items()})
    state = published.state_dict()
    side = image_size // config.patch_size
    positions = state["visual.positional_embedding"]
    square = positions[1:].T.reshape(1, -1, config.grid, config.grid)  # [1, D, G, G]
    square = F.interpolate(
        square, (side, side), mode="bicubic", antialias=True, align_corners=False
    )  # [1, D, P, P]
    state["visual.positional_embedding"] = torch.cat([positions[:1], square.flatten(2)[0].T])
    network = Network(config, side)
    network.load_state_dict(state)
    torch.manual_seed(seed)
    return Model(network, levels).to(device).eval()

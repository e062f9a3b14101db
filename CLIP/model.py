"""The two towers of CLIP (Radford et al., 2021; SPEC section 2), with the parameter names of the published files.

Letters: B images or sentences, S image side, P patches per side, N = P * P, D width, E joint width, T tokens.

The residual stream and the layer norms stay in float32. The large products run in the type of their weights, so
casting the weights of the blocks (`cast_blocks`) is all that half precision needs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64  # every published CLIP transformer has heads of this width


def quick_gelu(x: Tensor) -> Tensor:
    """X * sigmoid(1.702 x), which the published weights were trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quickgelu": quick_gelu}


@dataclass(frozen=True)
class Tower:
    """Size of one transformer."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class ClipConfig:
    """Everything that fixes the shapes of a CLIP network, except the image side it is used at."""

    embed_dim: int
    vision: Tower
    patch_size: int
    grid: int  # patches per side that the position embedding was trained for
    text: Tower
    context_length: int
    vocab_size: int


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear` in the type of the weight."""
    return F.linear(x.to(weight.dtype), weight, bias)


class TokenEmbedding(nn.Module):
    """A row for each token id. Unlike nn.Embedding it draws nothing at random, which on "meta" costs two seconds."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> [B, T, D]."""
        return F.embedding(tokens, self.weight)


class Attention(nn.Module):
    """Multi-head self-attention over [B, T, D], fused: no attention map is kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """Residual stream [B, T, D] -> [B, T, D]."""
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias)  # [B, T, 3D]
        return linear(self.attend(qkv, causal), self.out_proj.weight, self.out_proj.bias)

    def attend(self, qkv: Tensor, causal: bool) -> Tensor:
        """Attention-weighted values of all heads: queries, keys and values [B, T, 3D] -> [B, T, D]."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # each [B, heads, T, D / heads]
        values = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return values.transpose(1, 2).flatten(2)  # [B, T, D]


class MLP(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, T, D] -> [B, T, D]."""
        x = self.activation(linear(x, self.c_fc.weight, self.c_fc.bias))  # [B, T, 4D]
        return linear(x, self.c_proj.weight, self.c_proj.bias)


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Return the residual stream [B, T, D] after this block."""
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, tower: Tower, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(tower.width, tower.heads, activation) for _ in range(tower.layers)
        )

    def forward(
        self, x: Tensor, first: int = 0, last: int | None = None, causal: bool = False
    ) -> Tensor:
        """Apply blocks number `first` + 1 to `last` (counted from one) to the residual stream x [B, T, D]."""
        for block in self.resblocks[first:last]:
            x = block(x, causal)
        return x


class VisionTransformer(nn.Module):
    """Images to the residual stream, class token first."""

    def __init__(self, config: ClipConfig, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        width = config.vision.width
        self.width, self.layers, self.patch_size = width, config.vision.layers, config.patch_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(config.vision, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """The stream before block 1: images [B, 3, S, S] float32 -> [B, 1 + N, D]."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [B, N, D]
        cls = self.class_embedding.expand(len(images), 1, -1)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled image features [B, E], not normalised. MVFA does not use them."""
        cls = self.transformer(self.embed(images))[:, 0]
        return self.ln_post(cls) @ self.proj


def cast_blocks(tower: Transformer, dtype: torch.dtype) -> None:
    """Cast the large matrices of all blocks, in place. Norms, embeddings and the stream stay in float32."""
    for block in tower.resblocks:
        block.attn.to(dtype)
        block.mlp.to(dtype)


class CLIP(nn.Module):
    """Both towers under the names of the published state dict."""

    text_asleep: torch.dtype | None = None  # what the text blocks compute in; None: they are ready

    def __init__(self, config: ClipConfig, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.config, self.activation = config, activation
        self.visual = VisionTransformer(config, ACTIVATIONS[activation])
        self.transformer = Transformer(config.text, ACTIVATIONS[activation])
        self.token_embedding = TokenEmbedding(config.vocab_size, config.text.width)
        self.positional_embedding = nn.Parameter(
            torch.empty(config.context_length, config.text.width)
        )
        self.ln_final = nn.LayerNorm(config.text.width)
        self.text_projection = nn.Parameter(torch.empty(config.text.width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    def encode_image(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] float32 -> pooled features [B, E], not normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T], T up to the context length -> features [B, E], not normalised.

        The attention is causal and the row of the end token is read, so zeros behind it change nothing: T may be cut
        to the longest sentence.
        """
        with self.text_awake():
            x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
            x = self.transformer(x, causal=True)
            ends = x[
                torch.arange(len(x), device=x.device), tokens.argmax(dim=1)
            ]  # the end token has the highest id
            return self.ln_final(ends) @ self.text_projection

    @contextmanager
    def text_awake(self) -> Iterator[None]:
        """Within, the text weights have the types they compute in; else they stay as the file has them.

        Text features are mostly read from disk, and half a gigabyte is then never made.
        """
        asleep = self.text_asleep
        if asleep is None:
            yield
            return
        stored = {
            name: p.data for name, p in self.named_parameters() if not name.startswith("visual.")
        }
        for name, values in stored.items():
            self.get_parameter(name).data = values.float()
        cast_blocks(self.transformer, asleep)
        self.text_asleep = None
        try:
            yield
        finally:
            for name, values in stored.items():
                self.get_parameter(name).data = values
            self.text_asleep = asleep

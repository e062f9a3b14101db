"""The two towers of CLIP (Radford et al., 2021; SPEC section 2).

Parameters have the names of the published files.

Letters: B images or sentences, S image side in pixels, P patches per side, N = P * P, D width,
H heads, E joint width, T tokens.

Hidden tokens (the residual path) and layer norms stay in float32. The large products run in the
type of their weights, so half precision needs nothing but `cast_blocks`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATRIX = 2  # dimensions
HEAD_WIDTH = 64  # every published CLIP transformer has heads of this width


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), the activation the published weights were trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quickgelu": quick_gelu}


@dataclass(frozen=True)
class Tower:
    """Size of one transformer: D, number of blocks, attention heads per block."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class ClipConfig:
    """All sizes of a CLIP network except the image side it is used at."""

    embed_dim: int  # E
    vision: Tower
    patch_size: int
    grid: int  # patches per side of the position embedding in the weight file
    text: Tower
    context_length: int  # most tokens of a sentence
    vocab_size: int


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `F.linear` in the type of the weight: [..., K] -> [..., N]."""
    return F.linear(x.to(weight.dtype), weight, bias)


class TokenEmbedding(nn.Module):
    """One row per token id.

    Unlike nn.Embedding it draws no initial weights, which takes two seconds even on "meta".
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up token ids: [B, T] int64 -> [B, T, D]."""
        return F.embedding(tokens, self.weight)


class Attention(nn.Module):
    """Multi-head self-attention; fused, so that attention maps are never stored."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """Attend from every token to all (causal: to earlier) ones: [B, T, D] -> [B, T, D]."""
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias)  # [B, T, 3D]
        return linear(self.attend(qkv, causal), self.out_proj.weight, self.out_proj.bias)

    def attend(self, qkv: Tensor, causal: bool) -> Tensor:
        """Compute attention from queries, keys and values: [B, T, 3D] -> [B, T, D]."""
        split = qkv.unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, D / H]
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each [B, H, T, D / H]
        values = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return values.transpose(1, 2).flatten(2)  # [B, T, D]


class MLP(nn.Module):
    """Two linear layers with a hidden width of 4 D."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers: [B, T, D] -> [B, T, D]."""
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
        """Compute the hidden tokens after this block: [B, T, D] -> [B, T, D]."""
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of residual blocks."""

    def __init__(self, tower: Tower, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(tower.width, tower.heads, activation) for _ in range(tower.layers)
        )

    def forward(
        self, x: Tensor, first: int = 0, last: int | None = None, causal: bool = False
    ) -> Tensor:
        """Apply blocks number `first` + 1 to `last` (counted from 1): [B, T, D] -> [B, T, D].

        `last` None: all blocks to the end.
        """
        for block in self.resblocks[first:last]:
            x = block(x, causal)
        return x


class VisionTransformer(nn.Module):
    """The vision tower: images to hidden tokens, class token first."""

    def __init__(self, config: ClipConfig, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        width = config.vision.width
        self.width = width
        self.layers = config.vision.layers
        self.patch_size = config.patch_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(config.vision, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the blocks' matrices."""
        return next(p.dtype for p in self.transformer.parameters() if p.ndim == MATRIX)

    @property
    def half_on_gpu(self) -> bool:
        """Whether the blocks run in half precision on a GPU; what follows them then does, too.

        That is the products of the adapters and the search in the memory bank. On a CPU, where
        half precision is no faster, they stay in float32.
        """
        return self.class_embedding.device.type != "cpu" and self.dtype != torch.float32

    def embed(self, images: Tensor) -> Tensor:
        """Compute the hidden tokens before block 1: [B, 3, S, S] float32 -> [B, 1 + N, D]."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [B, N, D]
        cls = self.class_embedding.expand(images.shape[0], 1, -1)  # [B, 1, D]
        return self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Compute pooled image features, not normalised: [B, 3, S, S] float32 -> [B, E].

        MVFA does not use them.
        """
        cls = self.transformer(self.embed(images))[:, 0]  # [B, D]
        return self.ln_post(cls) @ self.proj


def cast_blocks(tower: Transformer, dtype: torch.dtype) -> None:
    """Cast the large matrices of all blocks in place; norms and embeddings stay in float32."""
    for block in tower.resblocks:
        block.attn.to(dtype)
        block.mlp.to(dtype)


class CLIP(nn.Module):
    """Both towers, under the names of the published state dict.

    Attributes:
        file: the weight file that `create_model` read; None for a network built otherwise.
        text_dtype: type the blocks of the text tower compute in while sentences are encoded.
            Between, the text weights stay as the file has them: text features are mostly read
            from a cache, and half a gigabyte of float32 weights is then never made. None: the
            text tower is always ready.

    """

    file: Path | None = None
    text_dtype: torch.dtype | None = None

    def __init__(self, config: ClipConfig, activation: str = "gelu") -> None:
        """Build a network without weight values; `activation` is a key of ACTIVATIONS."""
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.config = config
        self.activation = activation
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
    def weight_file(self) -> Path:
        """The weight file that `create_model` read; AssertionError for other networks."""
        assert self.file is not None, "this network was not loaded from a file"
        return self.file

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.logit_scale.device

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images: [B, 3, S, S] float32 -> pooled features [B, E], not normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids [B, T], T up to the context length, to features [B, E], not normalised.

        Attention is causal and the row of the end token is read, so the zeros behind it change
        nothing: T may be the longest sentence's length.
        """
        with self.text_tower_ready():
            x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
            x = self.transformer(x, causal=True)  # [B, T, D]
            ends = tokens.argmax(dim=1)  # [B]; the end token has the highest id
            x = x[torch.arange(len(x), device=x.device), ends]  # [B, D]
            return self.ln_final(x) @ self.text_projection

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """Encode sentences to features [B, E] float32, not normalised, on the network's device.

        Sentences of equal length are encoded together, without padding. Raises UserError if a
        sentence is longer than the context.
        """
        from CLIP.tokenizer import tokenize  # slow; text features are mostly read from a file

        tokens = tokenize(sentences, self.config.context_length)  # [B, T]
        lengths = tokens.argmax(dim=1) + 1  # [B]; the end token has the highest id
        features = torch.empty(len(tokens), self.config.embed_dim, device=self.device)
        with self.text_tower_ready():
            for length in lengths.unique().tolist():
                rows = (lengths == length).nonzero().squeeze(1)
                batch = tokens[rows, :length].to(self.device)
                features[rows.to(self.device)] = self.encode_text(batch)
        return features

    @contextmanager
    def text_tower_ready(self) -> Iterator[None]:
        """Within, hold the text weights in the types they compute in (see `text_dtype`)."""
        dtype = self.text_dtype
        if dtype is None:
            yield
            return
        stored = {
            name: p.data for name, p in self.named_parameters() if not name.startswith("visual.")
        }
        for name, values in stored.items():
            self.get_parameter(name).data = values.float()
        cast_blocks(self.transformer, dtype)
        self.text_dtype = None
        try:
            yield
        finally:
            for name, values in stored.items():
                self.get_parameter(name).data = values
            self.text_dtype = dtype

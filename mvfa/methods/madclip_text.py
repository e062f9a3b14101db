"""Text features from learned contexts, through CLIP's text tower without a causal mask.

MadCLIP (arXiv 2506.23810). Letters: n sentences of both classes, T tokens of a sentence, D text
width, E joint width.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prompt
from CLIP.model import CLIP, Block, linear
from CLIP.tokenizer import tokenize
from errors import UserError

CLASSES = ("normal", "abnormal")  # columns of the text features
# the leading blank of " disease {}" is the released code's; the tokenizer drops it
STATES = (
    prompt.NORMAL_STATES,
    (*prompt.ABNORMAL_STATES, " disease {}", "abnormal {}"),
)
PROMPTS = ("prompt_maker_normal", "prompt_maker_abnormal")  # groups of a checkpoint, by class
LEARNER = "prompt_learner.ctx."  # before the names of contexts in a checkpoint
TOWER = "text_encoder."  # before those of CLIP's text weights, which the released files repeat
PLACES = ("end", "front", "middle")  # of the state in its sentence, seen from the context
CONTEXT = 8  # learned tokens of a sentence
HALF = CONTEXT // 2  # of them before a state in the middle
BEHIND = 1 + CONTEXT  # place of the first token behind the start and the context
DEVIATION = 0.02  # of the contexts' initial values


def names() -> list[str]:
    """List the contexts by name: class by class, place by place."""
    return [f"{label}_{place}" for label in CLASSES for place in PLACES]


def sentences(noun: str) -> list[str]:
    """List the sentences, whose X are replaced by a context: of normal states, then abnormal."""
    start = "X " * CONTEXT
    return [f"{start}{state.format(noun)}." for states in STATES for state in states]


def order(place: str, length: int, total: int) -> list[int]:
    """Return which token stands where in a sentence of `total` tokens, T.

    Numbers below T are tokens of the sentence, T to T + 7 those of the context. `length`: of the
    state, which the context stands before ("end"), behind ("front") or around ("middle").
    """
    context = list(range(total, total + CONTEXT))
    state = list(range(BEHIND, BEHIND + length))
    rest = list(range(BEHIND + length, total))
    if place == "end":
        return [0, *context, *state, *rest]
    if place == "front":
        return [0, *state, *context, *rest]
    return [0, *context[:HALF], *state, *context[HALF:], *rest]


class LearnedText(nn.Module):
    """The text features of one noun, from contexts that are trained.

    Args:
        clip: the frozen network, whose text tower encodes.
        noun: of the object.
        generator: draws the contexts' initial values; None: torch's global generator.

    Attributes:
        contexts: [7, 8, D] each, by `names`: of 7 states, 8 tokens.

    """

    def __init__(self, clip: CLIP, noun: str, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.clip = clip
        self.noun = noun
        self._training_weights = ExitStack()
        device = clip.positional_embedding.device
        total = clip.config.context_length
        tokens = tokenize(sentences(noun), total)
        tokens = F.pad(tokens, (0, total - tokens.shape[1]))  # [14, T]
        ends = tokens.argmax(dim=1)  # [14]; the end token has the highest id
        lengths = (ends - BEHIND - 1).tolist()  # of the states: "." stands before the end
        rows = torch.arange(len(tokens)).unflatten(0, (len(CLASSES), -1))  # [2, 7]
        self.tokens = tokens.to(device)
        self.order = torch.tensor(
            [order(place, lengths[i], total) for own in rows for place in PLACES for i in own]
        ).to(device)  # [n, T]
        # the end token stands at the same place wherever the context is
        self.ends = torch.cat([ends[own] for own in rows for _ in PLACES]).to(device)  # [n]
        self.contexts = nn.ParameterDict()
        for name in names():
            values = torch.empty(rows.shape[1], CONTEXT, clip.config.text.width)
            nn.init.normal_(values, std=DEVIATION, generator=generator)
            self.contexts[name] = nn.Parameter(values.to(device))

    def embed(self) -> Tensor:
        """Return what the text tower's blocks read, [n, T, D]: learned and known tokens."""
        known = self.clip.token_embedding(self.tokens).unflatten(0, (len(CLASSES), 1, -1))
        known = known.expand(-1, len(PLACES), -1, -1, -1)  # [2, 1, 7, T, D] -> [2, 3, 7, T, D]
        learned = torch.stack([self.contexts[name] for name in names()])  # [6, 7, 8, D]
        learned = learned.unflatten(0, (len(CLASSES), -1))  # [2, 3, 7, 8, D]
        tokens = torch.cat([known, learned], dim=3).flatten(0, 2)  # [n, T + 8, D]
        x = tokens.take_along_dim(self.order[:, :, None], dim=1)  # [n, T, D]
        return x + self.clip.positional_embedding

    def encode(self, x: Tensor) -> Tensor:
        """Encode sentences, [n, T, D] -> [n, E], not normalised.

        Every token attends to all others, padding included: all T places count.
        """
        blocks = self.clip.transformer.resblocks
        x = self.clip.transformer(x, last=len(blocks) - 1)  # [n, T, D]
        x = end_rows(cast(Block, blocks[-1]), x, self.ends)  # [n, D]
        return self.clip.ln_final(x) @ self.clip.text_projection

    def columns(self, rows: Tensor) -> Tensor:
        """Return the text features [E, 2] of encoded sentences [n, E]: normal, then abnormal."""
        means = rows.unflatten(0, (len(CLASSES), -1)).mean(dim=1)  # [n, E] -> [2, E]
        return F.normalize(means, dim=1).T

    def forward(self) -> Tensor:
        """Compute the text features [E, 2]; with gradients, which only the contexts receive.

        A training step's backward pass needs the text weights once more, so from the first one on
        they stay in the types that they compute in.
        """
        if torch.is_grad_enabled() and self.clip.text_dtype is not None:
            self._training_weights.enter_context(self.clip.text_tower_ready())
        with self.clip.text_tower_ready():
            return self.columns(self.encode(self.embed()))

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Return the contexts by group and name of a checkpoint; they are the parameters."""
        return {
            key: {
                f"{LEARNER}{label}_{place}": self.contexts[f"{label}_{place}"].data
                for place in PLACES
            }
            for label, key in zip(CLASSES, PROMPTS, strict=True)
        }


def end_rows(block: Block, x: Tensor, ends: Tensor) -> Tensor:
    """Compute the end tokens behind the last block only: [n, T, D], [n] -> [n, D].

    They need the keys and values of all tokens, but queries and MLP of the end tokens alone.
    """
    attn = block.attn
    width = x.shape[-1]
    rows = torch.arange(len(x), device=x.device)
    h = block.ln_1(x)  # [n, T, D]
    weight = attn.in_proj_weight
    bias = attn.in_proj_bias
    q = linear(h[rows, ends][:, None], weight[:width], bias[:width])  # [n, 1, D]
    k, v = linear(h, weight[width:], bias[width:]).chunk(2, dim=-1)  # each [n, T, D]
    q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (q, k, v))
    values = F.scaled_dot_product_attention(q, k, v)  # [n, H, 1, D / H]
    values = values.transpose(1, 2).flatten(1)  # [n, D]
    x = x[rows, ends] + linear(values, attn.out_proj.weight, attn.out_proj.bias)
    return x + block.mlp(block.ln_2(x))


def without_tower(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's group but for CLIP's text weights."""
    return {name: values for name, values in group.items() if not name.startswith(TOWER)}


def check_tower(clip: CLIP, group: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError if text weights in a checkpoint's group are not those of CLIP.

    `what` names the group. Values are compared in the narrower of their types.
    """
    own = dict(clip.named_parameters())
    for name in [name for name in group if name.startswith(TOWER)]:
        weight = own.get(name.removeprefix(TOWER))
        if weight is None or not same_values(weight, group[name]):
            raise UserError(
                f"{what} was trained with another text tower: {name[:80]} differs; "
                "pass the weights of its training with --clip_path FILE"
            )


def same_values(own: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal in the narrower of their types."""
    dtype = min(own.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return own.shape == other.shape and torch.equal(own.cpu().to(dtype), other.cpu().to(dtype))

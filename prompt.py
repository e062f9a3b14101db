"""Sentences for a noun and their text features (SPEC section 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.model import CLIP
from CLIP.tokenizer import tokenize

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
STATES = (NORMAL_STATES, ABNORMAL_STATES)  # the columns of the text features
TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)


def sentences(noun: str, states: Sequence[str]) -> list[str]:
    """Every template filled with every state phrase of the noun, state by state."""
    return [template.format(state.format(noun)) for state in states for template in TEMPLATES]


def sentence_groups(noun: str) -> list[list[str]]:
    """The sentences of each column of the text features."""
    return [sentences(noun, states) for states in STATES]


@torch.no_grad()
def text_features(clip: CLIP, noun: str) -> Tensor:
    """Features of a noun [E, 2] float32 of norm 1: column 0 normal, column 1 abnormal.

    Sentences of equal length are encoded together and only to that length: what stands behind the end token is never
    attended to.
    """
    groups = sentence_groups(noun)
    tokens = tokenize(
        [sentence for group in groups for sentence in group], clip.config.context_length
    )
    lengths = tokens.argmax(dim=1) + 1  # the end token has the highest id
    features = torch.empty(len(tokens), clip.config.embed_dim, device=clip.device)
    with clip.text_awake():
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            features[rows.to(clip.device)] = clip.encode_text(tokens[rows, :length].to(clip.device))
    means = [
        column.mean(dim=0)
        for column in F.normalize(features, dim=1).split([len(group) for group in groups])
    ]
    return F.normalize(torch.stack(means, dim=1), dim=0)

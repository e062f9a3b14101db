"""Sentences for a noun and their text features (SPEC section 2).

Letters: n sentences, E joint width of CLIP.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

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
STATES = (NORMAL_STATES, ABNORMAL_STATES)  # one group per column of the text features
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


class SentenceEncoder(Protocol):
    """What `text_features` needs of CLIP."""

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """Encode sentences to features [n, E] float32, not normalised."""
        ...


def sentences(noun: str, states: Sequence[str]) -> list[str]:
    """Fill every template with every state phrase of the noun, state by state."""
    return [template.format(state.format(noun)) for state in states for template in TEMPLATES]


def sentence_groups(noun: str) -> list[list[str]]:
    """List the sentences of each column of the text features: normal, then abnormal."""
    return [sentences(noun, states) for states in STATES]


@torch.no_grad()
def text_features(clip: SentenceEncoder, noun: str) -> Tensor:
    """Compute the text features [E, 2] float32 of a noun: column 0 normal, column 1 abnormal.

    Each column is the mean of its sentences' features, all divided by their norm, before and after
    (SPEC section 2).
    """
    groups = sentence_groups(noun)
    features = clip.encode_sentences([sentence for group in groups for sentence in group])  # [n, E]
    columns = F.normalize(features, dim=1).split([len(group) for group in groups])
    means = [column.mean(dim=0) for column in columns]  # 2 times [E]
    return F.normalize(torch.stack(means, dim=1), dim=0)  # [E, 2]

"""Text features of nouns, cached on disk: encoding 420 sentences takes seconds."""

import hashlib
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from CLIP.hashing import file_hash
from CLIP.model import CLIP
from dataset.catalog import ObjectInfo
from prompt import sentence_groups, text_features
from utils import LOAD_ERRORS, write_whole

FORMAT = 1  # of the entries; a change makes existing ones stale


def text_key(weights: str, **settings: object) -> str:
    """Return the name of an entry: a hash of everything that the features depend on."""
    content = json.dumps({"format": FORMAT, "weights": weights, **settings}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_entry(path: Path, embed_dim: int) -> Tensor | None:
    """Read text features [E, 2]; None if the entry is missing, broken or of another shape."""
    with suppress(*LOAD_ERRORS):
        features = torch.load(path, weights_only=True)
        norms = features.norm(dim=0)
        if features.shape == (embed_dim, 2) and torch.allclose(norms, torch.ones(2), atol=1e-4):
            return features
    return None


def cached_text_features(clip: CLIP, noun: str, precision: str, folder: Path | None) -> Tensor:
    """Return `prompt.text_features` [E, 2] of a noun, from `folder` where they were cached before.

    Without a folder nothing is cached. A folder that cannot be written only costs time.
    """
    if folder is None or clip.file is None:
        return text_features(clip, noun)
    settings = {"activation": clip.activation, "precision": precision}
    key = text_key(file_hash(clip.file), sentences=sentence_groups(noun), **settings)
    path = folder / f"{key}.pt"
    cached = read_entry(path, clip.config.embed_dim)
    if cached is None:
        cached = text_features(clip, noun).cpu()
        data = io.BytesIO()
        torch.save(cached, data)  # saved straight to a file, it would hold the file's name
        with suppress(OSError):
            write_whole(path, lambda part: part.write_bytes(data.getbuffer()))
    return cached.to(clip.device)


def cached_text_by_noun(
    clip: CLIP, objects: Iterable[ObjectInfo], precision: str, folder: Path | None
) -> dict[str, Tensor]:
    """Return the text features [E, 2] of several objects, by their nouns."""
    nouns = dict.fromkeys(obj.noun for obj in objects)
    return {noun: cached_text_features(clip, noun, precision, folder) for noun in nouns}

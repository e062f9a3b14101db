"""Text features of nouns, cached on disk: encoding 420 sentences takes seconds."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from CLIP.hashing import file_hash
from CLIP.model import CLIP
from CLIP.stored import DamagedError
from dataset.catalog import ObjectInfo
from mvfa import own_files
from prompt import sentence_groups, text_features
from utils import write_whole

FORMAT = 2  # of the entries; a change makes existing ones stale
LARGEST = 2**20  # bytes of an entry; those of CLIP ViT-L/14 have 8 kB
GROUP = "text"
NAME = "features"


def text_key(weights: str, **settings: object) -> str:
    """Return the name of an entry: a hash of everything that the features depend on."""
    content = json.dumps({"format": FORMAT, "weights": weights, **settings}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_entry(path: Path, key: str, embed_dim: int) -> Tensor | None:
    """Read the text features [E, 2] of a key.

    None if the entry is missing, broken, not what was written, of another key or another shape.
    """
    try:
        groups, about, digest = own_files.read(path, (GROUP,), LARGEST)
    except (DamagedError, OSError):
        return None
    features = groups.get(GROUP, {}).get(NAME)
    if digest is None or about != {"key": key} or features is None:
        return None
    unit = torch.ones(2)
    if features.dtype != torch.float32 or features.shape != (embed_dim, 2):
        return None
    return features if torch.allclose(features.norm(dim=0), unit, atol=1e-4) else None


def write_entry(path: Path, key: str, features: Tensor) -> None:
    """Write an entry, unless the folder cannot be written, which only costs time."""
    data = own_files.encode({GROUP: {NAME: features}}, {"key": key})
    with suppress(OSError):
        write_whole(path, lambda part: part.write_bytes(data))


def cached_text_features(clip: CLIP, noun: str, precision: str, folder: Path | None) -> Tensor:
    """Return `prompt.text_features` [E, 2] of a noun, from `folder` where they were cached before.

    Without a folder nothing is cached. A folder that cannot be written only costs time.
    """
    if folder is None or clip.file is None:
        return text_features(clip, noun)
    settings = {"activation": clip.activation, "precision": precision}
    key = text_key(file_hash(clip.file), sentences=sentence_groups(noun), **settings)
    path = folder / f"{key}.pt"
    cached = read_entry(path, key, clip.config.embed_dim)
    if cached is None:
        cached = text_features(clip, noun).cpu()
        write_entry(path, key, cached)
    return cached.to(clip.device)


def cached_text_by_noun(
    clip: CLIP, objects: Iterable[ObjectInfo], precision: str, folder: Path | None
) -> dict[str, Tensor]:
    """Return the text features [E, 2] of several objects, by their nouns."""
    nouns = dict.fromkeys(obj.noun for obj in objects)
    return {noun: cached_text_features(clip, noun, precision, folder) for noun in nouns}

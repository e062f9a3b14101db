"""Weight files of CLIP on disk: which are known and where they lie. Needs no torch."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from CLIP.hashing import file_hash
from errors import UserError

CONFIGS = Path(__file__).parent / "model_configs"
WEIGHTS = Path(__file__).parent / "ckpt"


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """The model configurations by name: sizes, file name, address and SHA-256 of the published file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))}


def known_model(name: str) -> dict[str, Any]:
    """The entry of a model of `model_configs`. Raises UserError for another name."""
    if name not in known_models():
        raise UserError(f"unknown model {name!r}; known: {', '.join(known_models())}")
    return known_models()[name]


def weight_path(name: str | None, path: Path | None) -> Path:
    """The weight file to read: `path`, else the model's place under CLIP/ckpt. UserError says how to get it."""
    if name is None and path is None:
        raise ValueError("a name or a path is needed")
    known = None if name is None else known_model(name)
    found = path if path is not None else WEIGHTS / known["file"]  # type: ignore[index]  # one of the two is given
    if found.is_file():
        return found
    if known is not None and known["url"]:
        raise UserError(
            f"no weights at {found}; download {known['url']} to there, or pass --clip_path FILE"
        )
    if name == "ViT-demo":
        raise UserError(
            f"no weights at {found}; `make demo` or `python -m CLIP.demo_weights` writes them"
        )
    raise UserError(f"no weights at {found}; pass an existing file with --clip_path FILE")


def published_hashes() -> dict[str, str]:
    """Return the SHA-256 of every published weight file by its file name."""
    return {model["file"]: model["sha256"] for model in known_models().values() if model["sha256"]}


def check_published(path: Path) -> None:
    """Raise UserError if a file, of whatever format, has a published name but not the published content."""
    published = published_hashes().get(path.name)
    if published is not None and file_hash(path) != published:
        raise UserError(
            f"{path} has a published name but not its content: SHA-256 {file_hash(path)[:12]}..., published "
            f"{published[:12]}...; download it again, or rename it if it is meant to be another file"
        )


def check_runnable(path: Path, trusted: bool) -> None:
    """Raise UserError for a TorchScript archive that is neither published nor trusted: loading one runs its code."""
    if not trusted and file_hash(path) not in published_hashes().values():
        raise UserError(
            f"{path} is a TorchScript archive of unknown SHA-256 {file_hash(path)[:12]}..., and loading one runs "
            f"code that it holds; save its state dict as .safetensors, or pass --trust_weights yes if you trust it"
        )

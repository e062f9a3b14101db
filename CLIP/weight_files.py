"""Weight files of backbones on disk: names, places and hashes. Needs no torch."""

import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from CLIP.hashing import file_hash, hash_ahead
from errors import IN_WHEEL, UserError

CONFIGS = Path(__file__).parent / "model_configs"
OTHER_FOLDER = "MVFA_WEIGHTS"  # environment variable
DEMO_DINO = "dinov2-demo"
DINO_PLACE = "https://dl.fbaipublicfiles.com/dinov2"


def dino_models() -> dict[str, dict[str, Any]]:
    """Return the DINOv2 towers by name: sizes, file name and URL; no hashes are published."""
    models: dict[str, dict[str, Any]] = {}
    for letter, width, blocks in (("s", 384, 12), ("b", 768, 12), ("l", 1024, 24)):
        for registers in (0, 4):
            base = f"dinov2_vit{letter}14"
            file = f"{base}{'_reg4' if registers else ''}_pretrain.pth"
            name = f"{base}_reg" if registers else base
            sizes = {"width": width, "blocks": blocks, "registers": registers}
            models[name] = {**sizes, "file": file, "url": f"{DINO_PLACE}/{base}/{file}"}
    demo = {"width": 64, "blocks": 4, "registers": 0, "file": f"{DEMO_DINO}.pth", "url": None}
    return models | {DEMO_DINO: demo}


DINO_MODELS = dino_models()
DEMO_MODELS = {"ViT-demo": "synthetic.network", DEMO_DINO: "synthetic.dino"}  # who writes them


def weights_folder(in_wheel: bool = IN_WHEEL) -> Path:
    """Return where weight files lie: in MVFA_WEIGHTS, if it is set, else in CLIP/ckpt.

    A wheel's default is the user's data folder: site-packages is no place for a user's files. For a
    user without a home it is below the current folder.
    """
    if os.environ.get(OTHER_FOLDER):
        return Path(os.environ[OTHER_FOLDER])
    if not in_wheel:
        return Path(__file__).parent / "ckpt"
    from platformdirs import user_data_path

    with suppress(RuntimeError):  # older versions return a path that begins with ~ instead
        if (path := user_data_path("mvfa", appauthor=False)).is_absolute():
            return path / "weights"
    return Path("mvfa", "weights")


WEIGHTS = weights_folder()
WEIGHTS_SHOWN = str(WEIGHTS) if IN_WHEEL or os.environ.get(OTHER_FOLDER) else "CLIP/ckpt"


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """Return the models of `model_configs` by name: sizes, and file name, URL and SHA-256."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))}


def known_model(name: str) -> dict[str, Any]:
    """Return the entry of a model of `model_configs`. Raises UserError for an unknown name."""
    if name not in known_models():
        raise UserError(f"unknown model {name!r}; known: {', '.join(known_models())}")
    return known_models()[name]


def weight_path(name: str | None, path: Path | None) -> Path:
    """Return the weight file to read: `path` if given, else the place of model `name` in WEIGHTS.

    Raises UserError, which says how to get the file, if it does not exist or the name is unknown;
    ValueError without both name and path.
    """
    model = None if name is None else DINO_MODELS.get(name) or known_model(name)
    if path is not None:
        file = path
    elif model is not None:
        file = WEIGHTS / model["file"]
    else:
        raise ValueError("a name or a path is needed")
    if file.is_file():
        return file
    if model is not None and "asset" in model:
        remedy = f"run python prepare_data.py download {model['asset']}, or pass --clip_path FILE"
    elif model is not None and model["url"]:
        remedy = f"download {model['url']} to there, or pass --clip_path FILE"
    elif name in DEMO_MODELS:
        remedy = "`mvfa-demo`" if IN_WHEEL else f"`make demo` or `python -m {DEMO_MODELS[name]}`"
        remedy += " writes them"
    else:
        remedy = "pass an existing file with --clip_path FILE"
    raise UserError(f"no weights at {file}; {remedy}")


def published_hashes() -> dict[str, str]:
    """Return the SHA-256 of every published weight file by its file name."""
    return {model["file"]: model["sha256"] for model in known_models().values() if model["sha256"]}


def examine_ahead(path: Path, hash_known: bool = False) -> None:
    """Start in the background what `check_weights` and `file_hash` wait for."""
    hash_ahead(path)
    if path.name not in published_hashes() and not hash_known:
        from CLIP.tensor_index import check_ahead

        check_ahead(path)


def check_weights(path: Path, hash_known: bool = False) -> None:
    """Raise UserError if the numbers of a weight file are not those that were written.

    A file with the name of a published one must have its SHA-256. Any other must have the checksums
    that it states, and finite numbers, unless the caller compares its SHA-256: `hash_known`.
    """
    published = published_hashes().get(path.name)
    if published is None:
        if not hash_known:
            check_numbers(path)
    elif file_hash(path) != published:
        raise UserError(
            f"{path} has a published name but not its content: "
            f"SHA-256 {file_hash(path)[:12]}..., published {published[:12]}...; "
            "download it again, or rename it if it is meant to be another file"
        )


def check_numbers(path: Path) -> None:
    """Raise UserError for a file whose numbers are damaged, and for one that holds no weights."""
    from CLIP.tensor_index import check_ahead

    try:
        reason = check_ahead(path).result()
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise unreadable(path, reason)


def unreadable(path: Path, reason: str) -> UserError:
    """Return the error for a file that is no weight file, or damaged."""
    remedy = "download it again, or pass another --clip_path"
    return UserError(f"{path} is not a readable weight file: {reason}; {remedy}")

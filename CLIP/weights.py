"""Load CLIP from a weight file (SPEC section 2).

Formats: the published TorchScript archives, a plain state dict (.pt), safetensors.
"""

import warnings
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from CLIP.hashing import hash_ahead
from CLIP.late import convert_late, late_names
from CLIP.model import CLIP, HEAD_WIDTH, ClipConfig, Tower, cast_blocks
from CLIP.transformers_names import from_transformers, is_transformers
from CLIP.weight_files import check_published, check_runnable, known_model, weight_path
from errors import UserError
from utils import LOAD_ERRORS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# integers beside the weights in the published files
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def model_config(name: str) -> ClipConfig:
    """Return the sizes of a model of `model_configs`. Raises UserError for an unknown name."""
    c = known_model(name)
    return ClipConfig(
        embed_dim=c["embed_dim"],
        vision=Tower(**c["vision"]),
        patch_size=c["patch_size"],
        grid=c["grid"],
        text=Tower(**c["text"]),
        context_length=c["context_length"],
        vocab_size=c["vocab_size"],
    )


def read_state(path: Path, trusted: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a weight file by name, on the CPU, memory-mapped if the format allows.

    Hashes are compared first: loading a TorchScript archive runs code that it holds, so an archive
    that is not a published one must be `trusted`. Raises UserError if the file is not a weight
    file, is damaged or is not trusted.
    """
    check_published(path)
    archive = is_torchscript(path)
    if archive:
        check_runnable(path, trusted)
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        elif archive:
            # torch.jit.load is deprecated; the published files need it
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except (*LOAD_ERRORS, SafetensorError) as error:
        reason = str(error).split("\n")[0][:120]
        raise UserError(
            f"{path} is not a readable weight file ({reason}); download it again"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(
            f"{path} holds no state dict of tensors; allowed: CLIP weights as .pt or .safetensors"
        )
    return {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, as the published weights are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # not an archive, or damaged: then reading it fails with a message


def infer_config(state: Mapping[str, Tensor]) -> ClipConfig:
    """Read the sizes of the network from the shapes of its weights.

    Raises UserError if the weights are not those of a CLIP vision transformer.
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        text_width, embed_dim = state["text_projection"].shape
        positions, _ = state["visual.positional_embedding"].shape
        vocab_size, _ = state["token_embedding.weight"].shape
        context_length, _ = state["positional_embedding"].shape
    except (KeyError, ValueError) as error:
        raise UserError(
            "the weights are not those of a CLIP vision transformer: "
            f"{error} is missing or has another shape; pass CLIP weights"
        ) from error
    return ClipConfig(
        embed_dim=embed_dim,
        vision=Tower(width, count_blocks(state, "visual.transformer."), width // HEAD_WIDTH),
        patch_size=patch,
        grid=round((positions - 1) ** 0.5),
        text=Tower(text_width, count_blocks(state, "transformer."), text_width // HEAD_WIDTH),
        context_length=context_length,
        vocab_size=vocab_size,
    )


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the transformer blocks whose parameter names start with a prefix."""
    blocks = prefix + "resblocks."
    return len({name[len(blocks) :].split(".")[0] for name in state if name.startswith(blocks)})


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError unless names and shapes equal the expected ones.

    The message begins with `what` and names the first missing, unknown or differing tensor.
    """
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        lists = [
            f"{len(names)} {word}, {names[0]} first"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise UserError(f"{what} do not fit: {'; '.join(lists)}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shape = list(tensor.shape)
            allowed = list(expected[name].shape)
            raise UserError(f"{what} do not fit: {name} has shape {shape}, allowed is {allowed}")


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Resize a position embedding [1 + G * G, D] to [1 + P * P, D], P = `side`, class token first.

    The class token's position is unchanged; the others are resized bicubically, antialiased,
    corners not aligned (SPEC section 2).
    """
    grid = round((len(positions) - 1) ** 0.5)
    if grid == side:
        return positions
    cls = positions[:1]
    patches = positions[1:].float()  # [G * G, D]
    square = patches.T.unflatten(1, (grid, grid))[None]  # [1, D, G, G]
    square = F.interpolate(
        square, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )  # [1, D, P, P]
    return torch.cat([cls.float(), square[0].flatten(1).T])  # [1 + P * P, D]


def create_model(
    name: str | None = "ViT-L-14-336",
    path: Path | None = None,
    *,
    image_size: int = 240,
    activation: str = "gelu",
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    trust_weights: bool = False,
    late: bool = False,
) -> CLIP:
    """Load a frozen CLIP, in evaluation mode, for images [B, 3, image_size, image_size].

    The last network is shared: a second call with equal arguments, while the file has the same
    size and modification time, returns the same object. It is frozen, so do not change it.

    Args:
        name: model of `model_configs` that the weights must be of; None: any CLIP ViT.
        path: weight file; None: the place of model `name` in `weight_files.WEIGHTS`.
        image_size: image side S in pixels; the position embedding is resized to it.
        activation: of both towers, a key of ACTIVATIONS.
        device: device of the network.
        precision: type of the blocks' matrices, a key of DTYPES; everything else is float32. The
            text weights take these types while sentences are encoded (`CLIP.text_dtype`).
        trust_weights: allow a TorchScript archive that is not a published one.
        late: on a CPU in fp32, convert the blocks' matrices when they are used (CLIP.late): a
            single image is ready earlier, and no result changes.

    Raises:
        UserError: the file is missing, damaged, not trusted or of another shape, or the image
            side is below one patch.

    """
    file = weight_path(name, path)
    hash_ahead(file)  # in the background, while the weights are read
    status = file.stat()
    return load_network(
        name,
        file,
        version=(status.st_size, status.st_mtime_ns),
        image_size=image_size,
        activation=activation,
        device=torch.device(device),
        precision=precision,
        trusted=trust_weights,
        late=late and precision == "fp32" and torch.device(device).type == "cpu",
    )


@lru_cache(maxsize=1)
def load_network(
    name: str | None,
    file: Path,
    version: tuple[int, int],  # noqa: ARG001  # size and modification time: part of the cache's key
    image_size: int,
    activation: str,
    device: torch.device,
    precision: str,
    trusted: bool,
    late: bool,
) -> CLIP:
    """Load the network of `create_model`; the last one is cached."""
    state = read_state(file, trusted)
    if is_transformers(state):
        state = from_transformers(state)
    config = infer_config(state)
    if name is not None and config != model_config(name):
        raise UserError(
            f"{file} does not hold {name} but {config}; choose the --model_name that fits"
        )
    if image_size < config.patch_size:
        raise UserError(
            f"--img_size {image_size} is below one patch; at least {config.patch_size} is needed"
        )
    with torch.device("meta"):  # no memory and no initial values
        model = CLIP(config, activation)
    check_state(state, model.state_dict(), f"the weights of {file}")
    positions = resize_positions(
        state["visual.positional_embedding"], image_size // config.patch_size
    )
    state["visual.positional_embedding"] = positions
    model.visual.positional_embedding = torch.nn.Parameter(
        torch.empty_like(positions, device="meta")
    )
    left = late_names(state) if late else set()
    weights = {
        key: value.float() if key.startswith("visual.") and key not in left else value
        for key, value in state.items()
    }
    model.load_state_dict(weights, assign=True)
    model.eval().requires_grad_(False)
    model.file = file
    model.text_dtype = DTYPES[precision]
    if left:
        convert_late(model.visual.transformer)
    else:
        cast_blocks(model.visual.transformer, DTYPES[precision])
    return model.to(device)

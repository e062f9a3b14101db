"""Weight files to a CLIP network: published TorchScript archive, plain state dict, safetensors (SPEC section 2)."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from CLIP.hashing import hash_ahead
from CLIP.model import CLIP, HEAD_WIDTH, ClipConfig, Tower, cast_blocks
from CLIP.transformers_names import from_transformers, is_transformers
from CLIP.weight_files import check_published, check_runnable, known_model, weight_path
from errors import UserError
from utils import LOAD_ERRORS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NOT_WEIGHTS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # integers beside the weights in published files


def model_config(name: str) -> ClipConfig:
    """Sizes of a model of `model_configs`. Raises UserError for another name."""
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
    """Read names and tensors of a weight file, memory-mapped where the format allows.

    Hashes are compared first: loading a TorchScript archive runs code, so one that is not published must be `trusted`.
    Raises UserError if the file is no weight file, is damaged or is not trusted.
    """
    check_published(path)
    archive = is_torchscript(path)
    if archive:
        check_runnable(path, trusted)
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        elif archive:
            with warnings.catch_warnings(
                action="ignore", category=FutureWarning
            ):  # the published form is an old one
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
    """Return whether a file is a TorchScript archive, such as the published weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (
        OSError,
        zipfile.BadZipFile,
    ):  # no archive at all, or a damaged one, which its reader refuses
        return False


def infer_config(state: Mapping[str, Tensor]) -> ClipConfig:
    """The size of the network, read from the shapes of its weights. UserError if they are not those of a CLIP ViT."""
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        text_width, embed_dim = state["text_projection"].shape
        positions, _ = state["visual.positional_embedding"].shape
        vocab_size, _ = state["token_embedding.weight"].shape
        context_length, _ = state["positional_embedding"].shape
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the weights are not those of a CLIP vision transformer: {error} is missing or odd"
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
    """Number of transformer blocks below a prefix."""
    return len(
        {
            name.split(".resblocks.")[1].split(".")[0]
            for name in state
            if name.startswith(prefix + "resblocks.")
        }
    )


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError unless names and shapes are exactly those expected; the message names the first that is not."""
    missing, unknown = (
        sorted(expected.keys() - state.keys()),
        sorted(state.keys() - expected.keys()),
    )
    if missing or unknown:
        lists = [
            f"{len(n)} {word}, {n[0]} first"
            for word, n in (("missing", missing), ("unknown", unknown))
            if n
        ]
        raise UserError(f"{what} do not fit: {'; '.join(lists)}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            got, allowed = list(tensor.shape), list(expected[name].shape)
            raise UserError(f"{what} do not fit: {name} has shape {got}, allowed is {allowed}")


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Resize the position embedding [1 + G * G, D] to [1 + P * P, D], P = side; the class position is kept.

    Bicubic, antialiased, corners not aligned (SPEC section 2).
    """
    grid = round((len(positions) - 1) ** 0.5)
    if grid == side:
        return positions
    cls, patches = positions[:1], positions[1:].float()
    square = patches.T.unflatten(1, (grid, grid))[None]  # [1, D, G, G]
    square = F.interpolate(
        square, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([cls.float(), square[0].flatten(1).T])


def create_model(
    name: str | None = "ViT-L-14-336",
    path: Path | None = None,
    *,
    image_size: int = 240,
    activation: str = "gelu",
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    trust_weights: bool = False,
) -> CLIP:
    """Load a frozen CLIP, in evaluation mode, for images [B, 3, image_size, image_size].

    The size of the network is read from the weights; `name`, unless None, must agree with it. The weights are float32;
    with another `precision` (a key of DTYPES) the matrices of the blocks are cast. The text tower takes these types
    when the first sentence comes. `trust_weights` allows a TorchScript archive that is not a published one.

    Raises UserError for a file that is missing, damaged, not trusted or of another shape, and for an image side below
    one patch.
    """
    file = weight_path(name, path)
    hash_ahead(file)  # in the background, where nothing needs the hash before the weights
    state = read_state(file, trust_weights)
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
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        model = CLIP(config, activation)
    check_state(state, model.state_dict(), f"the weights of {file}")
    positions = resize_positions(
        state["visual.positional_embedding"], image_size // config.patch_size
    )
    state["visual.positional_embedding"] = positions
    model.visual.positional_embedding = torch.nn.Parameter(
        torch.empty_like(positions, device="meta")
    )
    ready = {
        key: value.float() if key.startswith("visual.") else value for key, value in state.items()
    }
    model.load_state_dict(ready, assign=True)
    model.eval().requires_grad_(False)
    model.text_asleep = DTYPES[precision]
    cast_blocks(model.visual.transformer, DTYPES[precision])
    return model.to(device)

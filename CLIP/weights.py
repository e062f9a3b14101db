"""Load CLIP from a weight file (SPEC section 2).

Formats: the published TorchScript archives, a state dict (.pt), safetensors; none runs code.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.late import convert_late, late_names
from CLIP.model import CLIP, HEAD_WIDTH, ClipConfig, Tower, cast_blocks
from CLIP.stored import DamagedError
from CLIP.tensor_files import read_tensors
from CLIP.transformers_names import from_transformers, is_transformers
from CLIP.weight_files import (
    check_weights,
    examine_ahead,
    known_model,
    unreadable,
    weight_path,
)
from errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# integers beside the weights in the published files
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# weights whose shapes say how large a network is, and how many dimensions they have
DIMENSIONS = {
    "visual.conv1.weight": 4,
    "text_projection": 2,
    "visual.positional_embedding": 2,
    "token_embedding.weight": 2,
    "positional_embedding": 2,
}
MOST_BLOCKS = 128  # of a tower; the largest CLIP has 48
WRAPPERS = ("state_dict", "model")  # keys of the state dict in files of trainings
PARALLEL = "module."  # before every name of a network that several processes trained


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


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the floating-point tensors of a weight file by name, on the CPU, mapped into memory.

    Nothing that the file holds is run. Raises UserError if it is not a weight file or is damaged.
    """
    try:
        content = read_tensors(path)
    except DamagedError as error:
        raise unreadable(path, str(error)) from error
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    state = without_wrapping(content)
    if not isinstance(state, dict) or not all(map(is_named_tensor, state.items())):
        raise UserError(
            f"{path} holds no state dict of tensors; allowed: weights as .pt or .safetensors"
        )
    state = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS and not name.endswith("position_ids"):
            kind = str(tensor.dtype).removeprefix("torch.")
            remedy = "save floating-point weights, not quantised ones"
            raise UserError(f"{path} holds {kind} numbers as {name[:80]}; {remedy}")
    return state


def is_named_tensor(item: tuple[Any, Any]) -> bool:
    """Return whether an entry of a dictionary is a tensor with a name."""
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)


def without_wrapping(content: Any) -> Any:
    """Return the state dict of a training's file, which is one of several entries.

    Names of a network for several processes lose the beginning that all of them have.
    """
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    names = list(content) if isinstance(content, dict) else []
    if names and all(isinstance(n, str) and n.startswith(PARALLEL) for n in names):
        content = {name.removeprefix(PARALLEL): value for name, value in content.items()}
    return content


def infer_config(state: Mapping[str, Tensor], what: str = "the weights") -> ClipConfig:
    """Read the sizes of the network from the shapes of its weights.

    Raises UserError, whose message begins with `what`, if the weights are not those of a CLIP
    vision transformer.
    """
    for name, dimensions in DIMENSIONS.items():
        if name not in state or state[name].ndim != dimensions or not state[name].numel():
            raise UserError(
                f"{what} are not those of a CLIP vision transformer: {name!r} is missing or has "
                "another shape; pass CLIP weights"
            )
    width, _, patch, _ = state["visual.conv1.weight"].shape
    text_width, embed_dim = state["text_projection"].shape
    positions, _ = state["visual.positional_embedding"].shape
    vocab_size, _ = state["token_embedding.weight"].shape
    context_length, _ = state["positional_embedding"].shape
    blocks = count_blocks(state, "visual.transformer.")
    text_blocks = count_blocks(state, "transformer.")
    if width % HEAD_WIDTH or text_width % HEAD_WIDTH or max(blocks, text_blocks) > MOST_BLOCKS:
        raise UserError(
            f"{what} are not those of a CLIP vision transformer: got {blocks} and {text_blocks} "
            f"blocks of widths {width} and {text_width}; allowed are {MOST_BLOCKS} at most, of "
            f"multiples of {HEAD_WIDTH}; pass CLIP weights"
        )
    return ClipConfig(
        embed_dim=embed_dim,
        vision=Tower(width, blocks, width // HEAD_WIDTH),
        patch_size=patch,
        grid=round((positions - 1) ** 0.5),
        text=Tower(text_width, text_blocks, text_width // HEAD_WIDTH),
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
    hash_known: bool = False,
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
        hash_known: the caller compares the file's SHA-256 with that of a file that was checked.
        late: on a CPU in fp32, convert the blocks' matrices when they are used (CLIP.late): a
            single image is ready earlier, and no result changes.

    Raises:
        UserError: the file is missing, damaged or of another shape, or the image side is below
            one patch.

    """
    file = weight_path(name, path)
    examine_ahead(file, hash_known)
    check_weights(file, hash_known)
    status = file.stat()
    return load_network(
        name,
        file,
        version=(status.st_size, status.st_mtime_ns),
        image_size=image_size,
        activation=activation,
        device=torch.device(device),
        precision=precision,
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
    late: bool,
) -> CLIP:
    """Load the network of `create_model`; the last one is cached."""
    state = read_state(file)
    if is_transformers(state):
        state = from_transformers(state)
    config = infer_config(state, f"the weights of {file}")
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

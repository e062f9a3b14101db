"""CLIP weights of the `transformers` library under the published parameter names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

TOWERS = {"text_model": "", "vision_model": "visual."}
RENAMED = {
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
IN_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
BLOCK = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of `transformers.CLIPModel`."""
    return any(name.startswith("vision_model.") for name in state)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of `transformers` to the published names and shapes.

    Projections are transposed; query, key and value are stacked. Unknown names stay as they are, so
    that later checks report them.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = BLOCK.fullmatch(name)
        if name.endswith("position_ids"):  # a constant that older files carry
            continue
        if name in TRANSPOSED:
            renamed[TRANSPOSED[name]] = tensor.T
        elif match is None:
            renamed[RENAMED.get(name, name)] = tensor
        else:
            tower, block, part, kind = match.groups()
            prefix = f"{TOWERS[tower]}transformer.resblocks.{block}"
            if part in IN_BLOCK:
                renamed[f"{prefix}.{IN_BLOCK[part]}.{kind}"] = tensor
            elif part == "self_attn.q_proj":
                parts = [
                    state.get(name.replace("q_proj", f"{letter}_proj"), tensor[:0])
                    for letter in "qkv"
                ]
                renamed[f"{prefix}.attn.in_proj_{kind}"] = torch.cat(parts)
            elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
                renamed[name] = tensor
    return renamed

"""Build the arguments of create_model, MVFA, build_memory and predict from the options."""

from typing import Any

from CLIP.adapter import AdapterForm
from dataset.catalog import ObjectInfo
from loss import Objective
from mvfa.environment import Environment
from mvfa.options import Options
from mvfa.predictions import ScoreForm
from mvfa.recipe import Recipe


def clip_arguments(options: Options, env: Environment) -> dict[str, Any]:
    """Return the arguments of `create_model`: which weights, at what size, where and how."""
    return {
        "name": options.model_name,
        "path": options.clip_path,
        "image_size": options.img_size,
        "activation": options.recipe.activation,
        "device": env.device,
        "precision": env.precision,
    }


def adapter_form(recipe: Recipe) -> AdapterForm:
    """Return how adapters read the tokens and are mixed into them."""
    return AdapterForm(recipe.keep, recipe.mix, recipe.slope, recipe.projector)


def score_form(recipe: Recipe, levels: tuple[int, ...] = ()) -> ScoreForm:
    """Return how features of the given levels (none: all) become scores."""
    return ScoreForm(recipe.image_score, recipe.level_reduction, levels)


def objective(recipe: Recipe) -> Objective:
    """Return the loss of a batch."""
    return Objective(recipe.bce_pool, recipe.bce_input)


def memory_arguments(options: Options, target: ObjectInfo, env: Environment) -> dict[str, Any]:
    """Return the arguments of `build_memory`: whose tokens, which of them, and in what batches."""
    return {
        "masks": target.masks,
        "class_token": options.recipe.bank_class_token,
        "size": env.test_batch_size,
    }


def score_arguments(options: Options, target: ObjectInfo) -> dict[str, Any]:
    """Return the arguments of `predict` that say how features become maps and scores."""
    form = score_form(options.recipe, options.score_levels)
    return {"masks": target.masks, "form": form, "maps": options.pictures > 0}

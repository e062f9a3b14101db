"""Build the arguments of create_model, and the forms of adapters, scores and loss, from options."""

from typing import Any

from CLIP.adapter import AdapterForm
from loss import Objective
from mvfa.environment import Environment
from mvfa.options import Options
from mvfa.recipe import Recipe
from mvfa.score_form import ScoreForm


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

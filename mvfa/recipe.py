"""Recipes: every choice in which paper and released code differ (SPEC section 5). No torch.

The scripts take the choices of adapters, scores and losses from here.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

APRIL_GAN = "april_gan"
LEVELS = (6, 12, 18, 24)  # blocks with adapters
CHOICES = {
    "projector": ("none", "last", "all"),
    "bce_pool": ("mean", "max"),
    "bce_input": ("logit", "probability"),
    "image_score": ("mean", "max"),
    "level_reduction": ("sum", "mean"),
    "activation": ("gelu", "quickgelu"),
    "scaling": ("none", "clip"),
    "select": ("test", "valid", "last"),
}


def described(default: Any, description: str) -> Any:
    """Return a field with a default value and the help text of its flag."""
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True)
class Recipe:
    """The defaults are the released code's. Each field is also a flag of the scripts."""

    image_score: str = described(
        "mean",
        "image score of a branch: mean or max over its patches "
        "(mean: few-shot with masks takes the maximum of the fused map instead)",
    )
    keep: float = described(0.8, "weight of the hidden tokens when adapter outputs are mixed in")
    mix: float = described(0.1, "weight of each head's adapter output that is mixed in")
    slope: float = described(
        0.01, "slope of the adapters' leaky ReLU for negative values; 0 is a ReLU"
    )
    projector: str = described(
        "none",
        "levels with a linear projection, whose output is not mixed in, instead of an adapter",
    )
    bce_pool: str = described("mean", "how patch probabilities are pooled for the image loss")
    bce_input: str = described(
        "logit", "whether the image loss takes the pooled probability for a logit or a probability"
    )
    batch_size: int = 1
    rate_few: float = 1e-3
    rate_zero: float = 1e-4
    bank_class_token: bool = described(True, "keep class tokens in the memory bank beside patches")
    level_reduction: str = described("sum", "how scores of the levels are combined")
    activation: str = described("gelu", "activation of both towers; CLIP learned with quickgelu")
    scaling: str = described(
        "none", "clip: subtract CLIP's mean from the images and divide by its standard deviation"
    )
    select: str = described(
        "test",
        "which checkpoint is kept: the best on the test set (an oracle), the best on images of "
        "valid/ that are not shots, or the last one",
    )

    def as_dict(self) -> dict[str, object]:
        """Return fields and values, for files."""
        return asdict(self)


# in words, of the scripts' --recipe
RECIPES_SHOWN = (
    "released: what the released code does; paper: what the paper says; "
    f"{APRIL_GAN}: released, with projectors instead of adapters"
)
RECIPES = {
    "released": Recipe(),
    # The paper has one y; here it is the mean of both heads' y, so the weights still sum to 1.
    "paper": Recipe(
        image_score="max",
        keep=0.9,
        mix=0.05,
        slope=0.0,
        projector="last",
        bce_pool="max",
        bce_input="probability",
        batch_size=16,
        rate_few=1e-3,
        rate_zero=1e-3,
        bank_class_token=False,
        level_reduction="mean",
        activation="quickgelu",
        scaling="clip",
        select="last",
    ),
    # linear projectors read the hidden tokens of every level, which stay as they are
    APRIL_GAN: Recipe(projector="all"),
}

FIELDS = {recipe_field.name: recipe_field for recipe_field in fields(Recipe)}
OWN_FLAGS = ("batch_size", "rate_few", "rate_zero")  # set by flags of other names
# the other fields, which a checkpoint must share with the run that scores it, change scores
TRAINING_FIELDS = ("bce_pool", "bce_input", "batch_size", "rate_few", "rate_zero", "select")
SCORING_FIELDS = tuple(name for name in FIELDS if name not in TRAINING_FIELDS)

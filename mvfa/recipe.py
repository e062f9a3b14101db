"""Recipes: every choice in which the paper and the released code differ (SPEC section 5), by name. Needs no torch."""

from dataclasses import asdict, dataclass, fields

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


@dataclass(frozen=True)
class Recipe:
    """The defaults are the released code's. Each field is also a flag of the scripts."""

    image_score: str = (
        "mean"  # over patches (few-shot with masks: maximum of the fused map); "max" over patches
    )
    keep: float = 0.8  # share of the stream that passes an adapter level unchanged
    mix: float = 0.1  # share of each of the two adapters' outputs
    slope: float = 0.01  # of the adapters' leaky ReLU
    projector: str = "none"  # levels that have a linear projector instead of an adapter
    bce_pool: str = "mean"  # which patch probability the image loss sees
    bce_input: str = "logit"  # what that probability is taken for
    batch_size: int = 1
    rate_few: float = 1e-3
    rate_zero: float = 1e-4
    bank_class_token: bool = True  # whether the memory bank holds class tokens beside patches
    level_reduction: str = "sum"  # of scores over levels
    activation: str = "gelu"  # of both towers
    scaling: str = (
        "none"  # of the input: "clip" subtracts CLIP's mean and divides by its standard deviation
    )
    select: str = "test"  # checkpoint: best on the test set (an oracle), best on images of valid/, or the last

    def as_dict(self) -> dict[str, object]:
        """Fields and values, for files."""
        return asdict(self)


RECIPES = {
    "released": Recipe(),
    # The paper's y is one term; here it is the mean of the two branches, so that the weights still sum to 1.
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
}

FIELDS = {field.name: field for field in fields(Recipe)}
# what a checkpoint must share with the run that scores it; the rest only steers the training
STEERING_FIELDS = ("bce_pool", "bce_input", "batch_size", "rate_few", "rate_zero", "select")
SCORING_FIELDS = tuple(name for name in FIELDS if name not in STEERING_FIELDS)

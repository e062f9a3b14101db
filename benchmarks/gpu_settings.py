"""How much benchmarks.gpu measures, and where.

Letters: n images, K shots, S image side, B images of a batch.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    side: int  # S
    product: int  # side of the large matrix products
    copied: int  # bytes of the large copy
    images: int  # n, drawn test images
    pass_images: int  # most images of one timed pass
    batches: tuple[int, ...]  # B of the test
    banks: tuple[int, ...]  # K
    epochs: int  # of the small training
    steps: int  # timed training steps
    maps: int  # of the metrics
    map_side: int
    run_images: int  # test images of the whole run
    run_epochs: int
    run_shots: int
    repeats: int


FULL = Sizes(
    side=240,
    product=8192,
    copied=2**31,
    images=200,
    pass_images=512,
    batches=(1, 8, 32, 64, 128),
    banks=(4, 16),
    epochs=50,
    steps=40,
    maps=3_715,
    map_side=240,
    run_images=3_715,
    run_epochs=50,
    run_shots=4,
    repeats=5,
)
SMALL = Sizes(
    side=40,
    product=256,
    copied=2**22,
    images=12,
    pass_images=12,
    batches=(1, 8),
    banks=(1, 2),
    epochs=3,
    steps=4,
    maps=40,
    map_side=48,
    run_images=12,
    run_epochs=2,
    run_shots=1,
    repeats=2,
)


@dataclass(frozen=True)
class Setting:
    """What is run, and where."""

    device: str
    small: bool
    weights: Path | None  # None: stand-in weights
    scratch: Path  # folder for generated files
    deadline: float  # of `time.monotonic()`
    patience: float = 1.0  # factor of the seconds after which a stage is stopped

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return SMALL if self.small else FULL

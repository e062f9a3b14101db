"""Images scored side by side on a CPU, each on a share of the cores, and not one after another.

torch divides every product of an image among the cores, which then wait for each other: with
ViT-L/14 on two cores a tenth of the time. Images side by side hardly wait. Their scores must not
depend on it to the last bit, and no library promises that a product's rounding does not depend on
the number of threads. So one image is computed both ways first; unless all bits are equal, images
are scored one after another as before.

Letters: B images, S image side.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

from mvfa.detector import Detector
from mvfa.methods.base import Images

MOST = 8  # images at once
FEWEST = 8  # images that the first one's second pass is worth

Values = dict[str, Tensor]


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether values by name are the same to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class SideBySide:
    """Computes `Detector.patch_values` of several images at once, within a `with`.

    Args:
        detector: on a CPU; elsewhere, and with one thread, its own method is all that is used.

    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.threads = torch.get_num_threads()
        self.images = min(self.threads, MOST)  # at once
        self.proven: bool | None = None  # whether all bits are equal; None: not known yet
        if detector.device.type != "cpu" or self.threads == 1:
            self.proven = False
        self.pool = ThreadPoolExecutor(
            self.images, initializer=partial(torch.set_flush_denormal, True)
        )

    def __enter__(self) -> "SideBySide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, images: Images) -> list[Values]:
        """Return the patch values of each of some images, uint8; several at once if of one size."""
        alone = self.detector.patch_values
        if isinstance(images, list) or self.proven is False or len(images) < FEWEST:
            return alone(images)
        values: list[Values] = []
        if self.proven is None:
            values = self.beside(images[: self.images])
            self.proven = equal(values[0], alone(images[:1])[0])
            if not self.proven:
                return alone(images)
        rest = images[len(values) :]
        left = len(rest) % self.images  # would leave cores idle
        return values + self.beside(rest[: len(rest) - left]) + alone(rest[len(rest) - left :])

    def beside(self, images: Tensor) -> list[Values]:
        """Return the patch values of images [B, 3, S, S], several computed at once."""
        try:
            values = list(self.pool.map(self.one, images.split(1)))
        finally:
            torch.set_num_threads(self.threads)
        return [self.with_memory_score(found) for found in values]

    def one(self, image: Tensor) -> Values:
        """Return the patch values of an image [1, 3, S, S], on this thread's share of the cores."""
        torch.set_num_threads(self.threads // self.images)
        return self.detector.patch_values(image)[0]

    def with_memory_score(self, values: Values) -> Values:
        """Return an image's values with its memory score computed again, on all cores.

        The mean over a map is a long sum, which torch divides among its threads.
        """
        if "memory_scores" not in values:
            return values
        method = self.detector.method
        score = method.form.memory_score(values["distance"], values.get("sizes"), method.side)
        return values | {"memory_scores": score}

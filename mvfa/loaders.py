"""The feature loaders of a run, which share its device, processes and cache."""

from dataset.items import ImageSource
from dataset.medical_few import SupportSource
from mvfa.caches import CacheBudget
from mvfa.environment import Environment
from mvfa.features import FeatureLoader
from mvfa.methods.base import Method
from mvfa.options import Options


class Loaders:
    """Makes the feature loaders of a run. They share --cache_gb: first come, first served."""

    def __init__(self, method: Method, options: Options, env: Environment) -> None:
        self.method = method
        self.options = options
        self.env = env
        self.budget = CacheBudget(options.cache_gb, env.world)

    def training(self, images: ImageSource) -> FeatureLoader:
        """Return a loader of --batch_size images a step."""
        return self._loader(images, self.options.batch_size, reused=True)

    def support(self, images: SupportSource) -> FeatureLoader:
        """Return a training loader of augmented shots, with features computed ahead.

        They are computed in the batches that a test computes them in, so that the memory bank is
        the same to the bit.
        """
        loader = self.training(images)
        for rows in (images.normal, images.abnormal):
            loader.fill(rows, self.env.test_batch_size)
        return loader

    def scoring(self, images: ImageSource, *, reused: bool = False) -> FeatureLoader:
        """Return a loader for scoring; `reused`: cache its features, which are read again."""
        return self._loader(images, self.env.test_batch_size, reused=reused)

    def _loader(self, images: ImageSource, batch_size: int, *, reused: bool) -> FeatureLoader:
        return FeatureLoader(
            images,
            self.method,
            device=self.env.device,
            batch_size=batch_size,
            workers=self.env.workers,
            cache_gb=self.budget.take(images, self.method) if reused else 0.0,
            world=self.env.world,
        )

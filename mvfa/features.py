"""Compute each image's features up to the first adapter once, caching as many as memory allows.

No adapter precedes the stem of the vision tower, so these features are the same in every epoch.
Letters: B images of a batch, N patches, D vision width, S image side.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset.items import ImageSource, Item, joined, unpack_masks
from errors import UserError
from mvfa.accelerator import is_cuda, upload
from mvfa.caches import DecodedImages, allocate, divide, feature_bytes
from mvfa.distributed import World
from mvfa.halving import Halving
from mvfa.methods.base import Images, Method

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CONTEXT = "fork" if sys.platform == "linux" else None  # so that workers share decoded images
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

EXPECTED = (UserError, OSError, MemoryError)
Collated = tuple[Images, list[bytes], list[int]]


class Batch(NamedTuple):
    """The images of one step that fall to this rank.

    members [B] int64: indices in the image set, on the CPU. features [B, ...]: on the method's
    device. total: images of the step on all ranks; B may be 0 where other ranks have images.
    """

    members: Tensor
    features: Tensor
    total: int


def prepare(images: Tensor, device: torch.device, scaling: str = "none") -> Tensor:
    """Convert images [B, 3, S, S], uint8 or float32 in [0, 1], to the network's float32 input.

    `scaling`: "none" leaves them in [0, 1], "clip" applies CLIP's mean and standard deviation.
    """
    images = upload(images, device)
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if scaling == "clip":
        # imported here: slow to import, and the default recipe does not need it
        from kornia.enhance import normalize

        mean = torch.tensor(CLIP_MEAN, device=device)
        std = torch.tensor(CLIP_STD, device=device)
        images = normalize(images, mean, std)
    return images


class _ErrorsAsValues:
    """An image set for a DataLoader: errors that are no bugs are returned; workers wrap others.

    They are UserError, and troubles of the system (mvfa.system_errors).
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item | Exception:
        try:
            return self.source[index]
        except EXPECTED as error:
            return error


def collate(items: list[Item | Exception]) -> Collated | Exception:
    """Return images (stacked if of one size), masks and positions; the first error if any."""
    read = []
    for item in items:
        if isinstance(item, Exception):
            return item
        read.append(item)
    images: Images = [item.image for item in read]
    if len({image.shape for image in images}) == 1:
        images = torch.stack(list(images))
    return images, [item.mask for item in read], [item.position for item in read]


class FeatureLoader:
    """Batches of features of an image set, in any order.

    Features, else decoded images, are cached up to `cache_gb`. `batch_size` images a rank make a
    step. `workers` processes decode.
    """

    def __init__(
        self,
        source: ImageSource,
        method: Method,
        *,
        device: torch.device,
        batch_size: int,
        workers: int = 0,
        cache_gb: float = 0.0,
        world: World | None = None,
    ) -> None:
        self.source = method.source(source)
        self.method = method
        self.device = device
        self.world = world or World()
        self.batch_size = batch_size
        self.workers = workers
        self.cache_bytes = round(cache_gb * 1e9)
        self.cached = torch.zeros(len(source), dtype=torch.bool)
        self.store: Tensor | None = None
        self.decoded: ImageSource = self.source
        self.halving = Halving(self.world)
        self.packed_masks: dict[int, bytes] = {}  # of images that have been in a batch, by index

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def in_memory(self) -> bool:
        """Return whether the images need no decoding, and so no processes that do it."""
        return self.source[0].image.dtype != torch.uint8

    def rank_images(self) -> int:
        """Return how many images of a whole pass fall to this rank."""
        steps = self.world.share(range(len(self.source)), self.batch_size)
        return sum(len(group) for group, _ in steps)

    def masks(self, index: Sequence[int]) -> Tensor:
        """Return masks [B, S, S] bool of images that have been in a batch."""
        return unpack_masks([self.packed_masks[i] for i in index], self.source.side)

    def batches(
        self, order: Sequence[int] | None = None, size: int | None = None
    ) -> Iterator[Batch]:
        """Yield this rank's share of `order` (default: all), `size` or `batch_size` at a time.

        The features of a batch are computed together, or all of them come from the cache: part of
        a batch is never computed alone, since that may round differently.
        """
        images = range(len(self.source)) if order is None else order
        steps = self.world.share(images, size or self.batch_size)
        store = self._ensure_store()
        missing = [not bool(self.cached[group].all()) for group, _ in steps]
        computed = self._compute([step[0] for step, new in zip(steps, missing, strict=True) if new])
        for (group, total), new in zip(steps, missing, strict=True):
            members = torch.tensor(group, dtype=torch.int64)
            if new:
                features = next(computed)
            else:
                features = upload(store[upload(members, store.device)], self.device)
            yield Batch(members, features, total)

    def fill(self, order: Sequence[int], size: int) -> None:
        """Compute the features of some images, `size` at a time, as far as they can be cached."""
        store = self._ensure_store()
        for _ in self.batches([i for i in order if i < len(store)], size):
            pass

    def fill_steps(self, order: Sequence[int]) -> None:
        """Compute the features that training steps in this order would cache, as they would.

        A step of which nothing can be cached is left out.
        """
        size = self.batch_size * self.world.size
        rows = len(self._ensure_store())
        steps = [order[first : first + size] for first in range(0, len(order), size)]
        kept = [step for step in steps if min(step) < rows]
        for _ in self.batches([i for step in kept for i in step]):
            pass

    def _compute(self, groups: list[list[int]]) -> Iterator[Tensor]:
        """Decode groups of images, run the stem, and cache what fits."""
        if not groups:
            return
        # a loader needs the two methods only
        dataset: Dataset[Item] = _ErrorsAsValues(self.decoded)  # type: ignore[assignment]
        workers = 0 if self.in_memory else self.workers
        loader = DataLoader(
            dataset,
            batch_sampler=groups,
            num_workers=workers,
            collate_fn=collate,
            multiprocessing_context=CONTEXT if workers else None,
            pin_memory=is_cuda(self.device),
        )
        for loaded in loader:
            if isinstance(loaded, Exception):
                raise loaded
            images, masks, members = loaded
            if any(self.source.masked[members]):
                self.packed_masks.update(zip(members, masks, strict=True))
            features = self._features(images)
            self._cache(members, features)
            yield features

    def _features(self, images: Images) -> Tensor:
        """Return the features of images: in training of all at once."""
        if torch.is_grad_enabled():  # a training step needs far more memory, for all images
            return self.method.features(images)
        parts = [features for _, features in self.halving(self.method.features, images)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def _ensure_store(self) -> Tensor:
        """Return the store of features, which the first call makes.

        The bound is divided between features and decoded images.
        """
        if self.store is None:
            shape = self.method.feature_shape
            if shape is None or not self.cache_bytes:
                self.store = torch.empty(0)
                return self.store
            # three colours and the mask, a byte each
            image = 0 if self.in_memory else self.source.side**2 * (3 + 1)
            size = feature_bytes(self.method)
            rows, decoded = divide(self.cache_bytes, len(self.source), size, image)
            self.store = allocate((rows, *shape), torch.float32, self.device)
            if decoded:
                self.decoded = DecodedImages(self.source, len(self.store), decoded)
        return self.store

    def _cache(self, members: list[int], features: Tensor) -> None:
        store = self._ensure_store()
        rows = torch.tensor(members)
        new = ((rows < len(store)) & ~self.cached[rows]).nonzero().squeeze(1)
        if not len(new):
            return
        if len(new) < len(rows):
            rows = rows[new]
            features = features[upload(new, features.device)]
        store[upload(rows, store.device)] = features.to(store.device)
        self.cached[rows] = True

"""Image sets to the stream before the first adapter, computed once and kept as far as a memory bound allows.

No adapter precedes the stem of the vision tower, so its output is the same in every epoch.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from CLIP.adapter import MVFA
from dataset.items import ImageSource, Item, unpack_masks
from errors import UserError
from mvfa.caches import DecodedImages, allocate, divide
from mvfa.distributed import World

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Batch(NamedTuple):
    """Indices of the images [B] int64 on the CPU, streams [B, 1 + N, D] on the model's device.

    `total` counts the images of this step on all ranks; B may be 0 where other ranks have images.
    """

    members: Tensor
    stream: Tensor
    total: int


def prepare(images: Tensor, device: torch.device, scaling: str = "none") -> Tensor:
    """Images [B, 3, S, S], uint8 or float32 in [0, 1], as the network takes them; "clip": with its mean and std."""
    images = images.to(device, non_blocking=True)
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if scaling == "clip":
        from kornia.enhance import (
            normalize,  # slow to import, and the default recipe does not need it
        )

        images = normalize(images, *(torch.tensor(c, device=device) for c in (CLIP_MEAN, CLIP_STD)))
    return images


Collated = tuple[Tensor, list[bytes], list[int]]


class _Readable:
    """An image set as a loader reads it: a UserError comes back as a value, since a worker would wrap a raised one."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item | UserError:
        try:
            return self.source[index]
        except UserError as error:
            return error


def _collate(found: list[Item | UserError]) -> Collated | UserError:
    items = []
    for item in found:
        if isinstance(item, UserError):
            return item
        items.append(item)
    return (
        torch.stack([item.image for item in items]),
        [item.mask for item in items],
        [item.position for item in items],
    )


class FeatureLoader:
    """Batches of streams of an image set, in any order. FeatureLoader, else decoded images, are kept up to `cache_gb`."""

    def __init__(
        self,
        source: ImageSource,
        mvfa: MVFA,
        *,
        device: torch.device,
        batch_size: int,
        scaling: str = "none",
        workers: int = 0,
        cache_gb: float = 0.0,
        world: World | None = None,
    ) -> None:
        self.source, self.mvfa, self.device, self.world = source, mvfa, device, world or World()
        self.batch_size, self.scaling, self.workers = batch_size, scaling, workers
        self.cache_bytes = round(cache_gb * 1e9)
        self.kept = torch.zeros(len(source), dtype=torch.bool)
        self.store: Tensor | None = None
        self.decoded: ImageSource = source
        self._masks: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.source)

    def share(self) -> int:
        """Number of images of a whole pass that fall to this rank."""
        return sum(
            len(group) for group, _ in self.world.share(range(len(self.source)), self.batch_size)
        )

    @property
    def known_masks(self) -> dict[int, bytes]:
        """Packed masks of the images that have been in a batch, by index."""
        return self._masks

    def masks(self, index: Sequence[int]) -> Tensor:
        """Masks [B, S, S] bool of images that have been in a batch."""
        return unpack_masks([self._masks[i] for i in index], self.source.side)

    def batches(
        self, order: Sequence[int] | None = None, size: int | None = None
    ) -> Iterator[Batch]:
        """The rank's share of `order` (default: all images, by index), `size` (else `batch_size`) at a time.

        The streams of a batch are computed together, or all of them are taken from the cache: part of a batch is never
        computed alone, since that may round differently.
        """
        shares = self.world.share(
            range(len(self.source)) if order is None else order, size or self.batch_size
        )
        if self.store is None:
            self._allocate()
        missing = [not all(self.kept[i] for i in group) for group, _ in shares]
        fresh = self._load(
            [group for (group, _), absent in zip(shares, missing, strict=True) if absent]
        )
        for (group, total), absent in zip(shares, missing, strict=True):
            streams = next(fresh) if absent else self._cached(group)
            yield Batch(torch.tensor(group, dtype=torch.int64), streams, total)

    def fill(self, order: Sequence[int], size: int) -> None:
        """Compute the streams of some images, `size` at a time, as far as they can be kept."""
        if self.store is None:
            self._allocate()
        assert self.store is not None
        for _ in self.batches([i for i in order if i < len(self.store)], size):
            pass

    def _load(self, groups: list[list[int]]) -> Iterator[Tensor]:
        """Decode, run the stem, keep what fits."""
        if not groups:
            return
        dataset: Dataset[Item] = _Readable(self.decoded)  # type: ignore[assignment]  # it needs the two methods only
        loader = DataLoader(
            dataset,
            batch_sampler=groups,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
        )
        for loaded in loader:
            if isinstance(loaded, UserError):
                raise loaded
            images, masks, members = loaded
            if any(self.source.masked[members]):
                self._masks.update(zip(members, masks, strict=True))
            streams = self.mvfa.stem(prepare(images, self.device, self.scaling))
            self._keep(members, streams)
            yield streams

    def _allocate(self) -> None:
        """Divide the bound between streams and decoded images."""
        item, tokens = self.source[0], len(self.mvfa.visual.positional_embedding)
        stream = tokens * self.mvfa.visual.width * torch.float32.itemsize
        in_memory = item.image.dtype != torch.uint8
        image = (
            0 if in_memory else self.source.side**2 * (3 + 1)
        )  # three colours and the mask, a byte each
        streams, decoded = divide(self.cache_bytes, len(self.source), stream, image)
        self.store = allocate((streams, tokens, self.mvfa.visual.width), torch.float32, self.device)
        if decoded:
            self.decoded = DecodedImages(self.source, len(self.store), decoded)

    def _keep(self, members: list[int], streams: Tensor) -> None:
        assert self.store is not None
        for i, stream in zip(members, streams, strict=True):
            if i < len(self.store):
                self.store[i] = stream
                self.kept[i] = True

    def _cached(self, group: list[int]) -> Tensor:
        """FeatureLoader of a group of images that are all kept."""
        assert self.store is not None
        rows = torch.tensor(group, dtype=torch.int64, device=self.store.device)
        return self.store[rows].to(self.device)

"""What the stages of benchmarks.gpu share in one process: networks, images, banks, timing.

Letters: n images, K shots, S image side, M rows of the memory bank, B images of a batch.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu_data import OBJECT, STATES
from benchmarks.gpu_settings import Setting
from CLIP.adapter import MVFA
from CLIP.model import CLIP
from CLIP.weights import create_model, load_network
from dataset.catalog import object_info
from dataset.items import Item, pack_mask
from dataset.medical_few import THRESHOLD, eleven_versions
from dataset.pixels import resize, square
from mvfa.accelerator import (
    exact_products,
    forget_peak,
    peak_bytes,
    release_memory,
    synchronize,
)
from mvfa.defaults import DEFAULT_SEED
from mvfa.engine import build_memory
from mvfa.features import FeatureLoader
from mvfa.forms import adapter_form
from mvfa.methods.mvfa import Mvfa
from mvfa.recipe import LEVELS, RECIPES
from mvfa.text_cache import cached_text_features
from synthetic.images import IMAGE_SEED, picture
from synthetic.network import NAME as DEMO

RECIPE = RECIPES["released"]
BANK_BATCH = 32
MOST_SECONDS = 1.5  # of the repeats of one measurement, after which no further one starts


class InMemory:
    """Images in memory as an ImageSource: images [n, 3, S, S], masks [n, S, S] bool, labels [n].

    It has `length` images, the same ones again and again. Images are uint8, or float32 in [0, 1].
    """

    def __init__(
        self, images: Tensor, masks: Tensor, labels: Tensor, length: int | None = None
    ) -> None:
        length = length or len(images)
        info = object_info(OBJECT)
        self.images = images
        self.masks = masks
        self.packed = [pack_mask(mask) for mask in masks]
        self.side = images.shape[-1]
        self.labels = labels[torch.arange(length) % len(labels)]
        self.masked = torch.full((length,), info.masks)
        self.nouns = [info.noun] * length

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        row = index % len(self.images)
        return Item(self.images[row], self.packed[row], index)


def drawn(split: str, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images [n, 3, S, S] uint8, masks [n, S, S] bool and labels [n], n = `count`.

    Normal images first, then as many abnormal ones, or one more.
    """
    images = []
    masks = []
    labels = []
    for state, number in zip(STATES, (count // 2, count - count // 2), strict=True):
        for index in range(number):
            pixels, mask = picture(OBJECT, split, state, index, seed=IMAGE_SEED, size=side)
            images.append(square(Image.fromarray(pixels), side))
            small = resize(Image.fromarray(mask), side, Image.Resampling.NEAREST)
            masks.append(torch.from_numpy(np.array(small)))
            labels.append(float(state == STATES[1]))
    return torch.stack(images), torch.stack(masks), torch.tensor(labels)


@dataclass
class Lab:
    """One process's networks, images and timing, made when they are first used.

    `facts` are numbers that a stage leaves for later ones, such as the rate of matrix products.
    """

    setting: Setting
    facts: dict[str, float] = field(default_factory=dict)
    networks: dict[str, CLIP] = field(default_factory=dict)  # by precision

    def __post_init__(self) -> None:
        self.device = torch.device(self.setting.device)
        self.sizes = self.setting.sizes
        self.bank = cache(self._bank)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.setting.deadline - time.monotonic()

    @cached_property
    def folder(self) -> Path:
        """The folder with standin.pt and adapters.pth; of the small network with --small."""
        if not self.setting.small:
            from benchmarks.bench import standin_weights  # imports much

            return standin_weights().parent
        from benchmarks.rows_runs import small_model

        folder = self.setting.scratch / "small"
        if not folder.exists():
            folder.mkdir()
            small_model(folder)
            (folder / f"{DEMO}.pt").rename(folder / "standin.pt")
        return folder

    @property
    def weights(self) -> Path:
        """The weight file of all stages but parity."""
        return self.setting.weights or self.folder / "standin.pt"

    @cached_property
    def tests(self) -> tuple[Tensor, Tensor, Tensor]:
        """Test images, masks and labels."""
        return drawn("test", self.sizes.images, self.sizes.side)

    def source(self, length: int) -> InMemory:
        """Return `length` test images, the drawn ones again and again."""
        return InMemory(*self.tests, length=length)

    @cached_property
    def shots(self) -> tuple[Tensor, Tensor, Tensor]:
        """Shots of the largest K: as many normal as abnormal ones."""
        return drawn("valid", 2 * max(self.sizes.banks), self.sizes.side)

    def support(self, k: int) -> InMemory:
        """Return K normal and K abnormal shots in eleven versions each, abnormal ones first."""
        parts = []
        for label in (1.0, 0.0):
            chosen = (self.shots[2] == label).nonzero().squeeze(1)[:k]
            images, masks, _ = (values[chosen] for values in self.shots)
            grown, grown_masks = eleven_versions(images.float() / 255, masks.float())
            parts.append((grown, grown_masks > THRESHOLD, torch.full((len(grown),), label)))
        images, masks, labels = (torch.cat(values) for values in zip(*parts, strict=True))
        return InMemory(images, masks, labels)

    def network(self, precision: str) -> CLIP:
        """Return the backbone in a precision."""
        if precision not in self.networks:
            self.networks[precision] = create_model(
                None,
                self.weights,
                image_size=self.sizes.side,
                device=self.device,
                precision=precision,
            )
        return self.networks[precision]

    def method(self, precision: str, *, compiled: bool = False) -> Mvfa:
        """Return a new method, with the same adapters each time; the network in it is shared.

        With --small torch.compile is called, but compiles nothing.
        """
        exact_products()
        clip = self.network(precision)
        generator = torch.Generator().manual_seed(DEFAULT_SEED)
        model = MVFA(clip.visual, clip.config.embed_dim, LEVELS, adapter_form(RECIPE), generator)
        info = object_info(OBJECT)
        text = cached_text_features(clip, info.noun, precision, self.setting.scratch / "text")
        method = Mvfa(model, {info.noun: text}, RECIPE, info, self.sizes.side, clip.weight_file)
        if compiled:
            if self.setting.small:
                torch.compiler.set_stance("force_eager")
            method.compile_network()
        return method

    def forget(self) -> None:
        """Give up networks and memory banks."""
        self.networks.clear()
        self.bank.cache_clear()
        load_network.cache_clear()
        gc.collect()
        release_memory()

    def loader(
        self, source: InMemory, method: Mvfa, batch: int, *, cached: bool = False, workers: int = 0
    ) -> FeatureLoader:
        """Return the program's loader of an image set; `cached`: it keeps all features."""
        return FeatureLoader(
            source,
            method,
            device=self.device,
            batch_size=batch,
            workers=workers,
            cache_gb=100.0 if cached else 0.0,
        )

    def _bank(self, k: int, precision: str) -> list[Tensor]:
        """Build the memory bank of K normal shots: L times [M, E]."""
        source = self.support(k)
        method = self.method(precision)
        rows = (source.labels == 0).nonzero().squeeze(1).tolist()
        return build_memory(method, self.loader(source, method, BANK_BATCH), rows)

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> list[float]:
        """Measure a function after one call that does not count; the device has then finished."""
        measured: list[float] = []
        for turn in range((repeats or self.sizes.repeats) + 1):
            synchronize(self.device)
            start = time.perf_counter()
            work()
            synchronize(self.device)
            if turn:
                measured.append(time.perf_counter() - start)
            if sum(measured) > MOST_SECONDS:
                break
        return measured

    def peak(self, work: Callable[[], object]) -> int | None:
        """Return the device's peak memory while a function runs; None where it is not counted."""
        synchronize(self.device)
        forget_peak()
        work()
        synchronize(self.device)
        return peak_bytes(self.device)


def rates(amount: float, seconds: Sequence[float]) -> float:
    """Return the median of an amount per second."""
    return amount / median(seconds)

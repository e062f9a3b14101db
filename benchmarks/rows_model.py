"""Rows of the benchmark about the network: start, sentences, test images, training steps."""

from dataclasses import dataclass
from functools import cached_property
from statistics import median

from benchmarks.measure import (
    Product,
    Row,
    Settings,
    each,
    fresh,
    image_products,
    in_turn,
    step_products,
)
from benchmarks.rival import Rival
from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.folder import ImageSet, list_split
from dataset.medical_few import Support
from dataset.shots import choose_shots
from mvfa.defaults import DEFAULT_SEED
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.environment import set_up
from mvfa.evaluation import Maps
from mvfa.features import FeatureLoader
from mvfa.forms import adapter_form, clip_arguments
from mvfa.loaders import Loaders
from mvfa.methods.mvfa import Mvfa
from mvfa.options import parse
from mvfa.packing import packed_steps
from mvfa.recipe import LEVELS
from mvfa.text_cache import cached_text_features
from synthetic.images import write_demo
from utils import set_seed

OBJECT = "Brain"
NOUN = "Brain"
SHOTS = 2


@dataclass
class Pair:
    """The baseline in its process, and a run of this program with defaults and equal adapters."""

    settings: Settings

    def __post_init__(self) -> None:
        s = self.settings
        self.data = s.scratch / "demo"
        if not self.data.exists():
            write_demo(self.data, valid=4, test=20, shots=(SHOTS,))
        flags: list[object] = ["--obj", OBJECT, "--shot", SHOTS, "--seed", DEFAULT_SEED]
        flags += ["--clip_path", s.weights, "--img_size", s.side, "--device", s.device]
        flags += ["--cache_dir", s.scratch / "cache", "--out", s.scratch / "out"]
        self.options = parse("train_few", [str(flag) for flag in flags])
        self.env = set_up(self.options)
        generator = set_seed(self.options.seed)
        self.clip = create_model(**clip_arguments(self.options, self.env))
        levels = self.options.features_list
        form = adapter_form(self.options.recipe)
        model = MVFA(self.clip.visual, self.clip.config.embed_dim, levels, form, generator)
        recipe = self.options.recipe
        info = object_info(OBJECT)
        # [E, 2] of the object: random ones give denormal numbers, which are slow
        cache = self.options.text_cache
        self.text = cached_text_features(self.clip, NOUN, self.env.precision, cache)
        self.method = Mvfa(model, {NOUN: self.text}, recipe, info, s.side, self.clip.weight_file)
        self.loaders = Loaders(self.method, self.options, self.env)
        rate = self.options.learning_rate
        self.rival = Rival(s.weights, s.side, levels, s.device, rate, self.options.seed)
        self.product = Product(2048 if s.quick else 4096, s.device)

    @cached_property
    def support(self) -> Support:
        """The shots."""
        lists = self.data / "fewshot_seed"
        info = object_info(OBJECT)
        shots = choose_shots(self.data / "data", info, SHOTS, lists=lists, seed=DEFAULT_SEED)
        return Support(shots, info, self.settings.side)


def start(settings: Settings) -> list[Row]:
    """Measure from the start of a process to a ready model, imports included."""
    theirs: list[float] = []
    ours: list[float] = []
    for _ in range(settings.repeats + 1):
        for task, seconds in (("start_baseline", theirs), ("start_ours", ours)):
            report = fresh(task, settings.weights, settings.side, settings.device)
            seconds.append(report.measured["ready"] - report.started)
    # the first turn fills the page cache
    return [Row("start to model ready", "5x", theirs[1:], ours[1:])]


def text(settings: Settings) -> list[Row]:
    """Measure text features of one object, computed and read from the cache on disk."""
    pair = Pair(settings)
    folder = settings.scratch / "text"
    precision = pair.env.precision
    times = in_turn(
        {
            "baseline": lambda: pair.rival("sentences", NOUN),
            "ours": lambda: cached_text_features(pair.clip, NOUN, precision, None),
            "cached": lambda: cached_text_features(pair.clip, NOUN, precision, folder),
        },
        settings.few_repeats,
    )
    features = cached_text_features(pair.clip, NOUN, precision, folder)
    difference = (features - pair.rival("sentences", NOUN)).abs().max()
    work = "text features of one object"
    note = f"largest difference {difference:.0e}"
    return [
        Row(f"{work}, nothing cached", "4x", times["baseline"], times["ours"], note=note),
        Row(f"{work}, cached", "100x", times["baseline"], times["cached"], note=note),
    ]


def image(settings: Settings) -> list[Row]:
    """Measure a test image, from disk to full-size maps, with a memory bank of two shots."""
    pair = Pair(settings)
    side = settings.side
    count = 8 if settings.quick else 16
    info = object_info(OBJECT)
    records = list_split(pair.data / "data", info, "test")
    tests = ImageSet(records[:: len(records) // count][:count], side)
    support_loader = pair.loaders.scoring(pair.support)
    bank = build_memory(pair.method, support_loader, pair.support.normal)
    loaders: list[FeatureLoader] = []  # the latest one

    pair.rival("prepare", pair.text, bank, tests.records)

    def ours() -> None:
        for _ in Maps(predict(pair.method, loaders[-1], bank)):
            pass

    def first() -> None:
        loaders[:] = [pair.loaders.scoring(tests, reused=True)]
        ours()

    times = in_turn(
        {
            "baseline": lambda: pair.rival("images"),
            "first": first,
            "cached": ours,
            "product": pair.product,
        },
        settings.repeats,
    )
    config = pair.clip.config
    rates = pair.product.rates(times["product"])
    whole = image_products(config, side, bank=len(bank[0]))
    after_stem = image_products(config, side, bank=len(bank[0]), skipped=LEVELS[0])
    note = f"{count} images, batch {pair.env.test_batch_size}"
    note += f"; product rate {median(rates) / 1e9:.0f} GFLOP/s"
    rows = []
    for name, work, wanted, needed in (
        ("first", "test image, first time", "1.15x", whole),
        ("cached", "test image, cached features", "1.45x", after_stem),
    ):
        both = (each(times["baseline"], count), each(times[name], count))
        rows.append(Row(work, wanted, *both, 1, (whole, needed), rates, note=note))
    return rows


def step(settings: Settings) -> list[Row]:
    """Measure a few-shot training step of one image with a mask."""
    pair = Pair(settings)
    support = pair.support
    trainer = Trainer(pair.method, pair.options.learning_rate, pair.env.precision)
    fast_steps = packed_steps(pair.method, pair.options, pair.env)
    loader = pair.loaders.training(support)
    order = [0, len(support) // 2]  # an abnormal and a normal image
    list(loader.batches(order))  # caches the features

    pair.rival(
        "take_shots",
        pair.text,
        [(support.images[i], support.labels[i], support.masks[i]) for i in order],
    )

    def ours() -> None:
        with fast_steps:
            train(trainer, loader, order)

    times = in_turn(
        {"baseline": lambda: pair.rival("steps"), "ours": ours, "product": pair.product},
        settings.repeats,
    )
    needed = step_products(pair.clip.config, settings.side)
    rates = pair.product.rates(times["product"])
    both = (each(times["baseline"], len(order)), each(times["ours"], len(order)))
    note = "batch 1, cached features"
    work = "few-shot training step"
    return [Row(work, "2.5x", *both, 1, (needed, needed), rates, note=note)]

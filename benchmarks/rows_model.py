"""Rows of the benchmark about the network: start, sentences, test images, training steps."""

from dataclasses import dataclass
from functools import cached_property
from statistics import median

from torch import Tensor

from benchmarks.measure import (
    LEVELS,
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
from CLIP.hashing import file_hash
from dataset.folder import ImageSet, list_split
from dataset.medical_few import Support
from dataset.shots import choose_shots
from mvfa.engine import build_memory, predict, train
from mvfa.evaluation import Maps
from mvfa.features import FeatureLoader
from mvfa.options import parse
from mvfa.runner import load_text, score_form
from mvfa.training import TrainingRun
from synthetic.images import write_demo

NOUN, OBJECT, SHOTS = "Brain", "Brain", 2


@dataclass
class Pair:
    """The baseline in its process and a run of this program with its defaults; equal seeds give equal adapters."""

    settings: Settings

    def __post_init__(self) -> None:
        s = self.settings
        self.data = s.scratch / "demo"
        if not self.data.exists():
            write_demo(self.data, valid=4, test=20, shots=(SHOTS,))
        flags = [
            "--obj",
            OBJECT,
            "--shot",
            SHOTS,
            "--clip_path",
            s.weights,
            "--img_size",
            s.side,
            "--device",
            s.device,
        ]
        flags += ["--cache_dir", s.scratch / "cache"]
        self.run = TrainingRun(parse("train_few", [str(flag) for flag in flags]))
        self.rival = Rival(s.weights, s.side, LEVELS, s.device, self.run.options.learning_rate)
        self.product = Product(2048 if s.quick else 4096, s.device)

    @property
    def text(self) -> Tensor:
        """Text features [E, 2] of the object: which ones they are matters to speed, by numbers next to zero."""
        return self.run.text(self.run.info.noun)

    @cached_property
    def support(self) -> Support:
        """The shots."""
        shots = choose_shots(
            self.data / "data", self.run.info, SHOTS, lists=self.data / "fewshot_seed"
        )
        return Support(shots, self.run.info, self.settings.side)


def start(settings: Settings) -> list[Row]:
    """From the start of a process to a model that is ready, imports included."""
    theirs: list[float] = []
    ours: list[float] = []
    for _ in range(settings.repeats + 1):
        for task, seconds in (("start_baseline", theirs), ("start_ours", ours)):
            report = fresh(task, settings.weights, settings.side, settings.device)
            seconds.append(report.told["ready"] - report.started)
    return [
        Row("start to model ready", "5x", theirs[1:], ours[1:])
    ]  # the first fills the page cache


def text(settings: Settings) -> list[Row]:
    """Text features of one object, nothing cached, and read from the disk cache by a process that has the weights."""
    pair, folder = Pair(settings), settings.scratch / "text"
    run = pair.run
    weights = file_hash(run.weights)
    times = in_turn(
        {
            "baseline": lambda: pair.rival("sentences", NOUN),
            "ours": lambda: load_text(run.clip, NOUN, weights, run.precision, None),
            "cached": lambda: load_text(run.clip, NOUN, weights, run.precision, folder),
        },
        settings.few_repeats,
    )
    found = [
        load_text(run.clip, NOUN, weights, run.precision, folder),
        pair.rival("sentences", NOUN),
    ]
    note = f"largest difference {(found[0] - found[1]).abs().max():.0e}"
    return [
        Row(
            f"text features of one object, {told}",
            wanted,
            times["baseline"],
            times[name],
            note=note,
        )
        for name, told, wanted in (("ours", "nothing cached", "4x"), ("cached", "cached", "100x"))
    ]


def image(settings: Settings) -> list[Row]:
    """A test image, from disk to its full-size maps, with a memory bank of two shots; metrics are another row."""
    pair, side = Pair(settings), settings.side
    run, count = pair.run, 8 if settings.quick else 16
    records = list_split(pair.data / "data", run.info, "test")
    tests = ImageSet(records[:: len(records) // count][:count], side)
    bank = build_memory(run.mvfa, run.streams(pair.support, 8), pair.support.normal, "seg")
    streams: list[FeatureLoader] = []

    pair.rival("prepare", pair.text, bank, tests.records)

    def ours() -> None:
        found = predict(
            run.mvfa, streams[-1], pair.text, bank, masks=True, form=score_form(run.options.recipe)
        )
        for _ in Maps(found, side):
            pass

    def first() -> None:
        streams[:] = [run.streams(tests, run.test_batch_size)]
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
    config, rates = run.clip.config, pair.product.rates(times["product"])
    whole, after = (
        image_products(config, side, bank=len(bank[0]), skipped=n) for n in (0, LEVELS[0])
    )
    note = f"{count} images, batch {run.test_batch_size}; product rate {median(rates) / 1e9:.0f} GFLOP/s"
    rows = []
    for name, told, wanted, needed in (
        ("first", "first time", "1.15x", whole),
        ("cached", "cached streams", "1.45x", after),
    ):
        both = each(times["baseline"], count), each(times[name], count)
        rows.append(Row(f"test image, {told}", wanted, *both, 1, (whole, needed), rates, note=note))
    return rows


def step(settings: Settings) -> list[Row]:
    """A few-shot training step of one image with a mask."""
    pair = Pair(settings)
    run, support = pair.run, pair.support
    streams = run.streams(support, 1)
    order, nouns = (
        [0, len(support) // 2],
        {run.info.noun: pair.text},
    )  # an abnormal and a normal image
    list(streams.batches(order))

    pair.rival(
        "take_shots",
        pair.text,
        [(support.images[i], support.labels[i], support.masks[i]) for i in order],
    )

    def ours() -> None:
        train(run.trainer, streams, nouns, order)

    times = in_turn(
        {"baseline": lambda: pair.rival("steps"), "ours": ours, "product": pair.product},
        settings.repeats,
    )
    needed, rates = (
        step_products(run.clip.config, settings.side),
        pair.product.rates(times["product"]),
    )
    both = each(times["baseline"], len(order)), each(times["ours"], len(order))
    return [
        Row(
            "few-shot training step",
            "2.5x",
            *both,
            1,
            (needed, needed),
            rates,
            note="batch 1, cached streams",
        )
    ]

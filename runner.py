"""What the four scripts share: options to a model, streams and scores, and what a run leaves behind."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import checkpoint
from caches import stored_text, text_key
from CLIP import CLIP, MVFA, create_model, weight_hash
from CLIP.weights import weight_path
from dataset.catalog import Info, info
from dataset.folder import ImageSet
from dataset.items import ImageSource
from dataset.medical_few import Support
from dataset.shots import Shots
from distributed import LostProcessError, World, join, leave
from engine import Trainer, build_memory, gather, predict, train
from errors import UserError
from evaluation import Evaluation, evaluate
from options import Options
from prompt import sentence_groups, text_features
from recipe import SCORING_FIELDS
from report import results
from streams import Streams
from utils import choose_device, set_seed, writable

INTERRUPTED = 130  # exit status after Ctrl-C, by convention


@lru_cache(maxsize=1)
def load_clip(
    name: str | None, path: Path | None, side: int, activation: str, device: torch.device, precision: str
) -> CLIP:
    """`create_model`, kept for the next run of the same process."""
    return create_model(name, path, image_size=side, activation=activation, device=device, precision=precision)


def load_text(clip: CLIP, noun: str, weights: str, precision: str, folder: Path | None) -> Tensor:
    """`text_features`, kept on disk."""
    settings = {"activation": clip.activation, "precision": precision, "sentences": sentence_groups(noun)}
    key = text_key(weights, **settings)
    stored = stored_text(folder, key, clip.config.embed_dim, lambda: text_features(clip, noun))
    return stored.to(clip.device)


def show(total: int, told: str, unit: str, world: World) -> tqdm:
    """A progress bar, at the first rank only."""
    return tqdm(total=total, desc=told, unit=unit, leave=False, disable=not world.first)


@dataclass
class Run:
    """One run of a script: what it needs, and what it has found so far."""

    options: Options
    started: float = field(default_factory=time.perf_counter)
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Evaluation | None = None
    best_epoch: float = 0

    def __post_init__(self) -> None:
        options = self.options
        self.info: Info = info(options.obj)
        self.world = join()
        self._text: dict[str, Tensor] = {}
        writable(options.out, "--out")
        if options.save_model:
            writable(options.save_path, "--save_path")
        self.generator = set_seed(options.seed)
        self.device = choose_device(options.device)
        cuda = self.device.type == "cuda"
        self.precision = options.precision or ("fp16" if cuda else "fp32")
        self.workers = options.workers if options.workers is not None else (4 if cuda else 0)
        self.weights = weight_path(options.model_name, options.clip_path)
        activation = options.recipe.activation
        self.clip = load_clip(
            options.model_name, options.clip_path, options.img_size, activation, self.device, self.precision
        )
        form, width = options.recipe.adapter_form, self.clip.config.embed_dim
        self.mvfa = MVFA(self.clip.visual, width, options.features_list, form, self.generator)
        self.trainer = Trainer(self.mvfa, options.recipe.objective, options.learning_rate)

    @property
    def chosen(self) -> Evaluation:
        """The evaluation whose checkpoint the recipe chose."""
        assert self.best is not None, "a run evaluates at least once"
        return self.best

    def text(self, noun: str) -> Tensor:
        """Text features [E, 2] of a noun."""
        if noun not in self._text:
            folder = self.options.cache_dir / "text" if self.options.cache_gb else None
            self._text[noun] = load_text(self.clip, noun, weight_hash(self.weights), self.precision, folder)
        return self._text[noun]

    def streams(self, source: ImageSource, batch_size: int, *, reused: bool = True) -> Streams:
        """Batches of streams of an image set; those of a set that is not read again are not kept."""
        return Streams(
            source,
            self.mvfa,
            device=self.device,
            batch_size=batch_size,
            scaling=self.options.recipe.scaling,
            workers=self.workers,
            cache_gb=self.options.cache_gb / self.world.size if reused else 0.0,
            world=self.world,
        )

    def about(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be used by this run."""
        options = self.options
        described: dict[str, Any] = {"setting": options.setting, "object": options.obj}
        if options.setting == "few":
            described["shot"] = options.shot
        recipe = options.recipe.as_dict()
        described |= {"features_list": list(options.features_list), "weights": weight_hash(self.weights)}
        return described | {"recipe": {name: recipe[name] for name in SCORING_FIELDS}}

    def load_adapters(self, fallback: Path | None = None) -> None:
        """Load --ckpt, or the run's own checkpoint (else `fallback`, the authors' name), refused if it is another's."""
        options = self.options
        if options.ckpt is not None:
            checkpoint.apply(self.mvfa, checkpoint.load(options.ckpt))
            return
        own = options.checkpoint
        path = fallback if fallback is not None and fallback.is_file() and not own.is_file() else own
        found = checkpoint.load(path)
        checkpoint.check_about(found, self.about())
        checkpoint.apply(self.mvfa, found)

    def start_from(self, path: Path | None) -> None:
        """Load the adapters to start from, if any."""
        if path is not None:
            checkpoint.apply(self.mvfa, checkpoint.load(path))

    def train(self, streams: Streams, text: dict[str, Tensor], order: Sequence[int], told: str) -> float:
        """Train on the images of `order` under a progress bar; returns the mean loss."""
        steps = -(-len(order) // (streams.batch_size * self.world.size))
        with show(steps, told, "step", self.world) as bar:

            def report(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            return train(self.trainer, streams, text, order, report)

    def test(self, streams: Streams, memory: Streams | None = None) -> Evaluation:
        """Score the test set: the one way from adapters to metrics. `memory` holds the support set in few-shot."""
        recipe, bank = self.options.recipe, None
        if memory is not None:
            assert isinstance(memory.source, Support)
            branch = "seg" if self.info.masks else "det"
            bank = build_memory(self.mvfa, memory, memory.source.normal, branch, recipe.bank_class_token)
        with show(-(-len(streams) // self.world.size), "test", "image", self.world) as bar:
            found = predict(
                self.mvfa,
                streams,
                self.text(self.info.noun),
                bank,
                masks=self.info.masks,
                form=recipe.score_form,
                report=lambda images: bar.update(int(images)),
            )
        everything = gather(found, streams)
        return self.world.from_first(lambda: evaluate(everything, streams))

    def keep(self, evaluation: Evaluation, epoch: float, shots: Shots | None = None) -> None:
        """Note an evaluation after `epoch` epochs; if the recipe chooses it, write the checkpoint."""
        if self.world.first:
            print(results.lines(self.options.obj, evaluation), flush=True)
        self.history.append(
            {"epoch": epoch, "image_auroc": evaluation.image_auroc, "pixel_auroc": evaluation.pixel_auroc}
        )
        if self.options.recipe.select == "test" and self.best and evaluation.selection <= self.best.selection:
            return
        self.best, self.best_epoch = evaluation, epoch
        if self.options.save_model and self.world.first:
            details = {"seed": self.options.seed, "epoch": epoch, "versions": results.versions()}
            details |= {"shots": shots.names() if shots else None, "options": self.options.as_dict()}
            checkpoint.save(self.options.checkpoint, checkpoint.adapter_state(self.mvfa), self.about() | details)

    def finish(self, evaluation: Evaluation, tests: ImageSet, **more: Any) -> Evaluation:
        """Write metrics.json and scores.csv and say where they are."""
        if not self.world.first:
            return evaluation
        out, data = self.options.out, self.options.data_path
        content = {
            "image_auroc": evaluation.image_auroc,
            "pixel_auroc": evaluation.pixel_auroc,
            "pixel_auroc_bound": evaluation.pixel_bound,
            "train_loss": self.losses,
            "evaluations": self.history,
            **more,
            "options": self.options.as_dict() | {"device": str(self.device), "precision": self.precision},
            "versions": results.versions(),
            "weights": {"file": str(self.weights), "sha256": weight_hash(self.weights)},
            "processes": self.world.size,
            "seconds": round(time.perf_counter() - self.started, 3),
            "peak_memory_bytes": results.peak_memory(),
        }
        results.write_metrics(out, content)
        files = [record.image.relative_to(data).as_posix() for record in tests.records]
        results.write_scores(out, files, tests.labels, evaluation)
        print(f"{out}/metrics.json, {out}/scores.csv", file=sys.stderr)
        return evaluation


def command(main: Callable[[], Any]) -> None:
    """Run a script's main: a user's mistake is one line and exit status 2, Ctrl-C exit status 130.

    The loss of another process of the run is told in one line, too, with exit status 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # torchrun ends the others so when one has failed
    try:
        main()
        leave()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except LostProcessError as error:
        print(f"error: another process was lost ({error}); files written so far are whole", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; files written so far are whole", file=sys.stderr)
        sys.exit(INTERRUPTED)

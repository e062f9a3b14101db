"""What the four scripts share: options to a model, streams and scores, and what a run leaves behind."""

import os
import shutil
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from CLIP.adapter import MVFA, AdapterForm
from CLIP.hashing import file_hash, sha256
from CLIP.model import CLIP
from CLIP.weight_files import weight_path
from CLIP.weights import create_model
from dataset.catalog import ObjectInfo, object_info
from dataset.check import Checked, check_records, check_scorable
from dataset.folder import ImageSet
from dataset.items import ImageSource
from dataset.medical_few import Support
from dataset.shots import Shots, choose_shots
from errors import UserError
from mvfa import results
from mvfa.caches import stored_text, text_key
from mvfa.distributed import World, join
from mvfa.engine import Predictions, ScoreForm, build_memory, gather, predict
from mvfa.evaluation import Evaluation, evaluate
from mvfa.features import FeatureLoader
from mvfa.options import FEW, ZERO, Options
from mvfa.recipe import SCORING_FIELDS, Recipe
from prompt import sentence_groups, text_features
from utils import choose_device, set_seed, tune_process, writable

Bank = list[Tensor]
TEST_BATCH = {"cpu": 8, "cuda": 32}  # images scored at once; it changes no score


def adapter_form(recipe: Recipe) -> AdapterForm:
    """How adapters mix into the stream."""
    return AdapterForm(recipe.keep, recipe.mix, recipe.slope, recipe.projector)


def score_form(recipe: Recipe, levels: tuple[int, ...] = ()) -> ScoreForm:
    """How features of the given levels (none: all) become scores."""
    return ScoreForm(recipe.image_score, recipe.level_reduction, levels)


@lru_cache(maxsize=1)
def load_clip(
    name: str | None,
    path: Path | None,
    side: int,
    activation: str,
    device: torch.device,
    precision: str,
    trusted: bool,
) -> CLIP:
    """`create_model`, kept for the next run of the same process."""
    return create_model(
        name,
        path,
        image_size=side,
        activation=activation,
        device=device,
        precision=precision,
        trust_weights=trusted,
    )


def load_text(clip: CLIP, noun: str, weights: str, precision: str, folder: Path | None) -> Tensor:
    """`text_features`, kept on disk."""
    settings = {
        "activation": clip.activation,
        "precision": precision,
        "sentences": sentence_groups(noun),
    }
    key = text_key(weights, **settings)
    stored = stored_text(folder, key, clip.config.embed_dim, lambda: text_features(clip, noun))
    return stored.to(clip.device)


def show(total: int, told: str, unit: str, world: World) -> tqdm:
    """A progress bar, at the first rank only."""
    return tqdm(total=total, desc=told, unit=unit, leave=False, disable=not world.first)


class Run:
    """What training and testing share: the model, streams, scores, and the files that are left."""

    def __init__(self, options: Options) -> None:
        tune_process()
        self.options, self.started = options, time.perf_counter()
        self.info: ObjectInfo = object_info(options.obj)
        self.world = join()
        self.cache_left = int(
            options.cache_gb * 1e9 / self.world.size
        )  # bytes that no set of images has yet
        self._text: dict[str, Tensor] = {}
        self.adapters: Path | None = None  # the checkpoint file of the adapters that are scored
        writable(options.out, "--out")
        self.generator = set_seed(options.seed)
        self.device = choose_device(options.device)
        cuda = self.device.type == "cuda"
        self.precision = options.precision or ("fp16" if cuda else "fp32")
        self.workers = options.workers if options.workers is not None else (4 if cuda else 0)
        self.test_batch_size = options.test_batch_size or TEST_BATCH["cuda" if cuda else "cpu"]
        self.weights = weight_path(options.model_name, options.clip_path)
        activation = options.recipe.activation
        self.clip = load_clip(
            options.model_name,
            options.clip_path,
            options.img_size,
            activation,
            self.device,
            self.precision,
            options.trust_weights,
        )
        form, width = adapter_form(options.recipe), self.clip.config.embed_dim
        self.mvfa = MVFA(self.clip.visual, width, options.features_list, form, self.generator)
        if options.compile:
            if not cuda and shutil.which(os.environ.get("CXX", "g++")) is None:
                raise UserError(
                    "--compile yes needs a C++ compiler on a CPU; install g++ or leave the flag out"
                )
            self.mvfa.compile()

    @property
    def settled(self) -> dict[str, Any]:
        """Options that the device decided where they were not given."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "workers": self.workers,
            "test_batch_size": self.test_batch_size,
        }

    def text(self, noun: str) -> Tensor:
        """Text features [E, 2] of a noun."""
        if noun not in self._text:
            folder = self.options.cache_dir / "text" if self.options.cache_gb else None
            self._text[noun] = load_text(
                self.clip, noun, file_hash(self.weights), self.precision, folder
            )
        return self._text[noun]

    def streams(
        self, source: ImageSource, batch_size: int, *, reused: bool = True
    ) -> FeatureLoader:
        """Batches of streams of an image set; those of a set that is not read again are not kept.

        All sets of a run share --cache_gb, the first come first.
        """
        visual = self.mvfa.visual
        whole = (
            len(source) * len(visual.positional_embedding) * visual.width * torch.float32.itemsize
        )
        budget = min(self.cache_left, whole) if reused else 0
        self.cache_left -= budget
        return FeatureLoader(
            source,
            self.mvfa,
            device=self.device,
            batch_size=batch_size,
            scaling=self.options.recipe.scaling,
            workers=self.workers,
            cache_gb=budget / 1e9,
            world=self.world,
        )

    def shots(self) -> Shots:
        """The shots that the options name."""
        options = self.options
        return choose_shots(
            options.data_path,
            self.info,
            options.shot,
            draw=options.iterate,
            seed=options.seed,
            lists=options.fewshot_path,
            abnormal=options.abnormal_shot != 0,
        )

    def about(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be used by this run."""
        options = self.options
        described: dict[str, Any] = {"setting": options.adapters_setting, "object": options.obj}
        if options.adapters_setting == FEW:
            described["shot"] = options.shot
        recipe = options.recipe.as_dict()
        described |= {
            "features_list": list(options.features_list),
            "weights": file_hash(self.weights),
        }
        return described | {"recipe": {name: recipe[name] for name in SCORING_FIELDS}}

    def bank(self, memory: FeatureLoader | None) -> Bank | None:
        """Memory bank of the normal images of a support set, L times [M, E]; none in zero-shot."""
        if memory is None:
            return None
        assert isinstance(memory.source, Support)
        options, branch = self.options, "seg" if self.info.masks else "det"
        tokens = options.recipe.bank_class_token
        return build_memory(
            self.mvfa, memory, memory.source.normal, branch, tokens, self.test_batch_size
        )

    def predict(
        self,
        streams: FeatureLoader,
        bank: Bank | None = None,
        known: ObjectInfo | None = None,
        *,
        maps: bool = False,
    ) -> Predictions:
        """Patch values and scores of a set of images of an object (`known`, else the run's), at the first rank.

        `maps` keeps what maps need, where there are no masks, too.
        """
        known = known or self.info
        with show(-(-len(streams) // self.world.size), "test", "image", self.world) as bar:
            found = predict(
                self.mvfa,
                streams,
                self.text(known.noun),
                bank,
                masks=known.masks,
                form=score_form(self.options.recipe, self.options.score_levels),
                maps=maps,
                report=lambda images: bar.update(int(images)),
            )
        return gather(found, streams)

    def evaluate(self, found: Predictions, streams: FeatureLoader) -> Evaluation:
        """Scores and AUROCs, on every rank: the one way from predictions to metrics."""
        return self.world.from_first(lambda: evaluate(found, streams))

    def check(self, images: ImageSet, what: str) -> Checked:
        """Look at all images and masks of a set, and say how many masks are empty. UserError for a bad one."""
        with show(len(images), f"check {what}", "image", self.world) as bar:
            checked = check_records(images.records, images.side, bar.update)
        if checked.empty:
            self.tell(
                f"note: {checked.empty} of {checked.masks} masks of {what} are empty: nothing is marked in them"
            )
        return checked

    def check_tests(self, tests: ImageSet) -> Checked:
        """Look at the test set: its files, and whether both labels are there. UserError if it cannot be scored."""
        checked = self.check(tests, f"test images of {self.options.obj}")
        check_scorable(checked, self.info.masks, tests.side)
        return checked

    def check_shots(self, shots: Shots) -> None:
        """Look at the images and masks of the shots. UserError for a bad one."""
        self.check(
            ImageSet([*shots.normal, *shots.abnormal], self.options.img_size),
            f"shots of {self.options.obj}",
        )

    def print(self, text: str) -> None:
        """Print a line of results at the first rank."""
        if self.world.first:
            print(text, flush=True)

    def tell(self, text: str) -> None:
        """Print a remark, which is no result, at the first rank."""
        if self.world.first:
            print(text, file=sys.stderr, flush=True)

    def print_result(self, evaluation: Evaluation) -> None:
        """Print the lines of the released code."""
        self.print(results.lines(self.options.obj, evaluation, zero=self.options.setting == ZERO))

    def write(self, evaluation: Evaluation, tests: ImageSet, **more: Any) -> Evaluation:
        """Write metrics.json and scores.csv and say where they are."""
        if not self.world.first:
            return evaluation
        out = self.options.out
        content = {
            "image_auroc": evaluation.image_auroc,
            "pixel_auroc": evaluation.pixel_auroc,
            "pixel_auroc_bound": evaluation.pixel_bound,
            **more,
            "options": self.options.as_dict() | self.settled,
            "versions": results.versions(),
            "weights": {"file": str(self.weights), "sha256": file_hash(self.weights)},
            "adapters": self.adapters
            and {"file": str(self.adapters), "sha256": sha256(self.adapters)},
            "processes": self.world.size,
            "seconds": round(time.perf_counter() - self.started, 3),
            "peak_memory_bytes": results.peak_memory(self.device),
        }
        results.write_scores(out, self.files(tests), tests.labels, evaluation)
        results.write_metrics(out, content)  # last: where it is, the run is complete
        print(f"{out}/metrics.json, {out}/scores.csv", file=sys.stderr)
        return evaluation

    def files(self, images: ImageSet) -> list[str]:
        """Names of images below --data_path."""
        return [
            record.image.relative_to(self.options.data_path).as_posix() for record in images.records
        ]

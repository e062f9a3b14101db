"""The reference values of SPEC section 8, computed by this project.

`Bench` loads everything once; each value is a method, so that a test can change one thing and
compute it again. No pytest: benchmarks.gpu computes them on a machine without it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from CLIP.adapter import MVFA, TokenFeatures
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.folder import image_folder, make_records
from dataset.items import ImageSource
from dataset.medical_few import Support, evaluation_set
from dataset.shots import Shots
from mvfa import checkpoint
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import Evaluation, evaluate
from mvfa.features import FeatureLoader, prepare
from mvfa.forms import adapter_form
from mvfa.methods.mvfa import Mvfa
from mvfa.predictions import Predictions
from mvfa.recipe import LEVELS, RECIPES
from prompt import text_features
from tests.methods import load_mvfa, mvfa_method, recipe_of

REFERENCE = Path(__file__).parent / "reference"
EXPECTED = json.loads((REFERENCE / "expected.json").read_text())
ARRAYS = dict(np.load(REFERENCE / "expected.npz"))
SIDE = 112
CPU = torch.device("cpu")


def difference(got: Any, expected: Any) -> float:
    """Return the largest absolute difference divided by the largest absolute expected value.

    Where all expected values are zero it is divided by nothing.
    """
    got = got.detach().cpu() if isinstance(got, Tensor) else got
    got = np.asarray(got, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    assert got.shape == expected.shape, f"{got.shape} is not {expected.shape}"
    return float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))


class Bench:
    """The reference setting of one object.

    Args:
        folder: with the weights standin.pt and adapters.pth.
        obj: the object.
        activation: of the backbone.
        device: where everything is computed.
        precision: of the backbone.

    """

    def __init__(
        self,
        folder: Path,
        obj: str,
        activation: str = "gelu",
        *,
        device: torch.device = CPU,
        precision: str = "fp32",
    ) -> None:
        self.info = object_info(obj)
        self.device = device
        self.precision = precision
        self.clip = create_model(
            None,
            folder / "standin.pt",
            image_size=SIDE,
            activation=activation,
            device=device,
            precision=precision,
        )
        self.form = adapter_form(RECIPES["released"])
        self.adapters = load_mvfa(folder / "adapters.pth")
        self.text = text_features(self.clip, self.info.noun)
        normal = image_folder(REFERENCE / "data", obj, "valid", "good")
        abnormal = image_folder(REFERENCE / "data", obj, "valid", "Ungood")
        shots = Shots(
            make_records(self.info, normal, ["n0.png", "n1.png"]),
            make_records(self.info, abnormal, ["a0.png", "a1.png"]),
        )
        self.support = Support(shots, self.info, SIDE)
        self.tests = evaluation_set(REFERENCE / "data", self.info, SIDE)
        self.test_loader = self.loader(self.tests, 12)
        self.support_loader = self.loader(self.support, 22)
        list(self.support_loader.batches())

    def method(self, **changes: Any) -> Mvfa:
        """Build MVFA with the reference's adapters, of the released recipe with some changes."""
        model = MVFA(self.clip.visual, self.clip.config.embed_dim, LEVELS, self.form)
        recipe = recipe_of(**changes)
        text = {self.info.noun: self.text}
        method = mvfa_method(
            model, text, noun=self.info.noun, masks=self.info.masks, recipe=recipe, side=SIDE
        )
        checkpoint.apply(method, self.adapters)
        return method

    def mvfa(self) -> MVFA:
        """Build a model with the reference's adapters."""
        return self.method().model

    def loader(self, source: ImageSource, batch_size: int) -> FeatureLoader:
        return FeatureLoader(
            source, self.method(), device=self.device, batch_size=batch_size, cache_gb=1
        )

    @torch.no_grad()
    def tokens(self) -> TokenFeatures:
        """Compute the token features of the first test image."""
        model = self.mvfa()
        return model(model.stem(prepare(self.tests[0].image[None], self.device)))

    def memory(self, class_token: bool = True) -> list[Tensor]:
        method = self.method(bank_class_token=class_token)
        return build_memory(method, self.support_loader, self.support.normal)

    def predictions(self, few: bool) -> Predictions:
        bank = self.memory() if few else None
        return predict(self.method(), self.test_loader, bank)

    def evaluation(self, few: bool) -> Evaluation:
        return evaluate(self.predictions(few))

    @torch.no_grad()
    def loss(self) -> float:
        """Return the mean loss of the support set with the reference's adapters."""
        method = self.method()
        losses = []
        for batch in self.support_loader.batches():
            masks = None
            if self.info.masks:
                masks = self.support.masks[batch.members].to(self.device)
            labels = self.support.labels[batch.members].to(self.device)
            nouns = [self.info.noun] * len(labels)
            losses.append(method.loss(batch.features, labels, masks, nouns))
        return torch.cat(losses).mean().item()

    def train(self, rate: float, steps: int = 44, **settings: Any) -> tuple[list[float], MVFA]:
        """Train some steps of one image in the reference's order.

        Returns their losses and the trained model.
        """
        method = self.method()
        losses: list[float] = []
        trainer = Trainer(method, rate, self.precision, **settings)
        self.support_loader.batch_size = 1
        train(trainer, self.support_loader, range(steps), report=losses.append)
        self.support_loader.batch_size = 22
        return losses, method.model

"""What the released code computes, computed by this project, on the images and stand-in weights of the reference.

`Bench` holds everything loaded once; each figure is a method, so that a test can change one thing and look again.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from CLIP.adapter import MVFA, AdapterForm
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.folder import record
from dataset.medical_few import Support, evaluation_set
from dataset.shots import Shots
from loss import Objective
from mvfa import checkpoint
from mvfa.engine import Predictions, ScoreForm, Trainer, build_memory, predict, train
from mvfa.evaluation import Evaluation, evaluate
from mvfa.features import FeatureLoader
from prompt import text_features

REFERENCE = Path(__file__).parent / "reference"
EXPECTED = json.loads((REFERENCE / "expected.json").read_text())
ARRAYS = dict(np.load(REFERENCE / "expected.npz"))
SIDE = 112
CPU = torch.device("cpu")


def difference(got, expected) -> float:
    """Largest absolute difference over the largest absolute value."""
    got, expected = (np.asarray(x, dtype=np.float64) for x in (got, expected))
    assert got.shape == expected.shape, f"{got.shape} is not {expected.shape}"
    return float(np.abs(got - expected).max() / np.abs(expected).max())


class Bench:
    """The reference setting of one object."""

    def __init__(self, folder: Path, obj: str, activation: str = "gelu") -> None:
        self.info = object_info(obj)
        self.clip = create_model(
            None, folder / "standin.pt", image_size=SIDE, activation=activation
        )
        self.adapters = checkpoint.load(folder / "adapters.pth")
        self.branch = "seg" if self.info.masks else "det"
        self.text = text_features(self.clip, self.info.noun)
        valid = REFERENCE / "data" / f"{obj}_AD" / "valid"
        groups = (("good", ("n0.png", "n1.png")), ("Ungood", ("a0.png", "a1.png")))
        shots = Shots(
            *(
                [record(self.info, valid / state / "img", n) for n in names]
                for state, names in groups
            )
        )
        self.support = Support(shots, self.info, SIDE)
        self.tests = evaluation_set(REFERENCE / "data", self.info, SIDE)
        self.test_streams = self.streams(self.tests, 12)
        self.support_streams = self.streams(self.support, 22)
        list(self.support_streams.batches())

    def mvfa(self) -> MVFA:
        """A model with the given adapters."""
        mvfa = MVFA(self.clip.visual, self.clip.config.embed_dim, form=AdapterForm())
        checkpoint.apply(mvfa, self.adapters)
        return mvfa

    def streams(self, source, batch_size: int) -> FeatureLoader:
        return FeatureLoader(source, self.mvfa(), device=CPU, batch_size=batch_size, cache_gb=1)

    def memory(self, class_token: bool = True) -> list[Tensor]:
        return build_memory(
            self.mvfa(), self.support_streams, self.support.normal, self.branch, class_token
        )

    def predictions(self, few: bool) -> Predictions:
        bank = self.memory() if few else None
        mvfa = self.mvfa()
        return predict(
            mvfa, self.test_streams, self.text, bank, masks=self.info.masks, form=ScoreForm()
        )

    def evaluation(self, few: bool) -> Evaluation:
        return evaluate(self.predictions(few), self.test_streams)

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss of the support set with the given adapters."""
        trainer, losses = Trainer(self.mvfa(), Objective(), 0.0), []
        for batch in self.support_streams.batches():
            masks = self.support.masks[batch.members] if self.info.masks else None
            losses.append(
                trainer.loss(batch.stream, self.support.labels[batch.members], masks, self.text)
            )
        return torch.cat(losses).mean().item()

    def train(self, rate: float, steps: int = 44, **settings) -> tuple[list[float], MVFA]:
        """Losses of the first steps in the reference's order, one image a step, and the model after them."""
        mvfa, losses = self.mvfa(), []
        trainer = Trainer(mvfa, Objective(), rate, **settings)
        self.support_streams.batch_size = 1
        train(
            trainer, self.support_streams, {self.info.noun: self.text}, range(steps), losses.append
        )
        self.support_streams.batch_size = 22
        return losses, mvfa

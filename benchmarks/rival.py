"""The baseline in a process of its own: what the program tells the system, as how to keep memory, does not help it."""

from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks import baseline
from dataset.folder import Record


class Server:
    """What the process does. Every method is a task."""

    def __init__(
        self, weights: Path, side: int, levels: Sequence[int], device: str, rate: float
    ) -> None:
        self.side, self.model = side, baseline.load(weights, side, levels, device)
        self.training = baseline.Training(self.model, rate)
        self.text: Tensor
        self.bank: list[Tensor]
        self.records: list[Record]
        self.shots: list[tuple[Tensor, Tensor, Tensor]]

    def prepare(self, text: Tensor, bank: list[Tensor], records: list[Record]) -> None:
        """Take text features [E, 2], a bank L times [M, E], and test images."""
        self.text, self.bank, self.records = text, bank, records

    def take_shots(self, text: Tensor, shots: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Take text features [E, 2] and training images [3, S, S], their labels and masks [S, S]."""
        self.text, self.shots = text, shots

    def sentences(self, noun: str) -> Tensor:
        """Text features of a noun."""
        return baseline.text_features(self.model, noun)

    def images(self) -> None:
        """Score the test images."""
        kept = baseline.Kept()
        for record in self.records:
            baseline.score_image(self.model, record, self.text, self.bank, self.side, kept)

    def steps(self) -> None:
        """A training step of each training image."""
        for image, label, mask in self.shots:
            self.training.step(image, label, mask, self.text)


def serve(connection: Connection, *arguments: Any) -> None:
    """Do tasks until the other end closes."""
    server = Server(*arguments)
    while True:
        try:
            task, given = connection.recv()
        except EOFError:
            return
        result = getattr(server, task)(*given)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        connection.send(result)


class Rival:
    """The other end: `rival(task, ...)` waits for the result. RuntimeError if the process is lost."""

    def __init__(self, *arguments: Any) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, *arguments), daemon=True).start()
        theirs.close()

    def __call__(self, task: str, *given: Any) -> Any:
        """Do a task there."""
        try:
            self.connection.send((task, given))
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the baseline's process ended during {task!r}") from error

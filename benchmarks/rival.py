"""The baseline in a process of its own, which the program's process settings do not affect."""

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
    """What the process does: every method is a task."""

    def __init__(
        self, weights: Path, side: int, levels: Sequence[int], device: str, rate: float, seed: int
    ) -> None:
        self.side = side
        self.model = baseline.load(weights, side, levels, device, seed)
        self.training = baseline.Training(self.model, rate)
        self.text: Tensor
        self.bank: list[Tensor]
        self.records: list[Record]
        self.shots: list[tuple[Tensor, Tensor, Tensor]]

    def prepare(self, text: Tensor, bank: list[Tensor], records: list[Record]) -> None:
        """Store text features [E, 2], a memory bank (L times [M, E]) and test images."""
        self.text = text
        self.bank = bank
        self.records = records

    def take_shots(self, text: Tensor, shots: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Store text features [E, 2] and training images [3, S, S] with labels and masks [S, S]."""
        self.text = text
        self.shots = shots

    def sentences(self, noun: str) -> Tensor:
        """Compute the text features [E, 2] of a noun."""
        return baseline.text_features(self.model, noun)

    def images(self) -> None:
        """Score the test images."""
        outputs = baseline.Outputs()
        for record in self.records:
            baseline.score_image(self.model, record, self.text, self.bank, self.side, outputs)

    def steps(self) -> None:
        """Take a training step with each training image."""
        for image, label, mask in self.shots:
            self.training.step(image, label, mask, self.text)


def serve(connection: Connection, *arguments: Any) -> None:
    """Run tasks until the other end closes the connection."""
    server = Server(*arguments)
    while True:
        try:
            task, inputs = connection.recv()
        except EOFError:
            return
        result = getattr(server, task)(*inputs)
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        connection.send(result)


class Rival:
    """Start the process; `rival(task, ...)` runs a task there and waits for its result."""

    def __init__(self, *arguments: Any) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, *arguments), daemon=True).start()
        theirs.close()

    def __call__(self, task: str, *inputs: Any) -> Any:
        """Run a task and return its result. Raises RuntimeError if the process has ended."""
        try:
            self.connection.send((task, inputs))
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the baseline's process ended during {task!r}") from error

"""Training steps of one image as graphs: captured once, then replayed without a launch a kernel.

A step of one image is many small kernels, which a GPU finishes sooner than a CPU can launch them.
Letters: B images, S image side.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from mvfa.accelerator import capture

# features [B, ...], labels [B], masks [B, S, S] or None, nouns, and the images of the whole step
Gradients = Callable[[Tensor, Tensor, Tensor | None, Sequence[str], int], Tensor]


class StepGraph:
    """The loss and the gradients of steps of one shape.

    Args:
        gradients: adds gradients to `parameters` and returns the loss [].
        parameters: what is trained; none of them has a gradient when a step begins.
        features, labels, masks: of the first step; they are copied.
        nouns: what the images' objects are called.
        total: images of the step on all ranks.

    """

    def __init__(
        self,
        gradients: Gradients,
        parameters: Sequence[nn.Parameter],
        features: Tensor,
        labels: Tensor,
        masks: Tensor | None,
        nouns: Sequence[str],
        total: int,
    ) -> None:
        self.parameters = parameters
        self.features = features.clone()
        self.labels = labels.clone()
        self.masks = None if masks is None else masks.clone()
        self.loss: Tensor
        self.found: list[Tensor | None] = []

        def run() -> None:
            for parameter in parameters:
                parameter.grad = None
            self.loss = gradients(self.features, self.labels, self.masks, nouns, total)
            self.found = [parameter.grad for parameter in parameters]

        self.replay = capture(run, features.device)

    def __call__(self, features: Tensor, labels: Tensor, masks: Tensor | None) -> Tensor:
        """Put the gradients of a step in their place; return its loss [], until the next call."""
        self.features.copy_(features)
        self.labels.copy_(labels)
        if self.masks is not None and masks is not None:
            self.masks.copy_(masks)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.found, strict=True):
            parameter.grad = gradient
        return self.loss


class StepGraphs:
    """Compute what `gradients` does, by a graph for each object that a step's image may be of."""

    def __init__(self, gradients: Gradients, parameters: Sequence[nn.Parameter]) -> None:
        self.gradients = gradients
        self.parameters = parameters
        self.graphs: dict[tuple[object, ...], StepGraph] = {}

    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        masks: Tensor | None,
        nouns: Sequence[str],
        total: int,
    ) -> Tensor:
        """Set the gradients of a step; return its loss []."""
        key = (tuple(features.shape), masks is None, tuple(nouns), total)
        if key not in self.graphs:
            self.graphs[key] = StepGraph(
                self.gradients, self.parameters, features, labels, masks, nouns, total
            )
        return self.graphs[key](features, labels, masks)

"""Build modules without drawing their initial weights, where others are loaded next."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode


class Undrawn(TorchFunctionMode):
    """Within, nn.init.kaiming_uniform_ leaves tensors as they are, and generators too.

    Drawing adapters of ViT-L/14 takes a tenth of a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor as it is where it would be drawn; call any other function."""
        given = kwargs or {}
        return given["tensor"] if func is nn.init.kaiming_uniform_ else func(*args, **given)

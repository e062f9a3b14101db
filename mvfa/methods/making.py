"""Make the method that a script's options, or a detector's file, name."""

from collections.abc import Mapping
from importlib import import_module

import torch
from torch import Tensor

from dataset.catalog import ObjectInfo
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.methods.base import Method, Source
from mvfa.methods.catalog import MVFA
from mvfa.options import Options


def rival(
    options: Options, env: Environment, target: ObjectInfo, generator: torch.Generator
) -> Method | None:
    """Return the method of --method; None for MVFA, which the scripts spell out."""
    return None if options.method == MVFA else create_method(options, env, target, generator)


def create_method(
    options: Options, env: Environment, target: ObjectInfo, generator: torch.Generator
) -> Method:
    """Return the method of --method for an object, what is trained on it new. Raises UserError."""
    module = import_module(f"mvfa.methods.{options.method}")
    method: Method = module.create(options, env, target, generator)
    return method


def load_method(settings: Settings, tensors: Mapping[str, Tensor], source: Source) -> Method:
    """Return the method of a detector. Raises UserError unless its tensors fit."""
    module = import_module(f"mvfa.methods.{settings.method}")
    method: Method = module.load(settings, tensors, source)
    return method

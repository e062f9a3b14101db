"""Where a run computes: device, precision, processes, and what follows from them."""

import os
import shutil
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch

from errors import UserError
from mvfa.accelerator import choose_device, default_precision, exact_products, is_cuda
from mvfa.console import note
from mvfa.distributed import World, join
from mvfa.locks import hold_file, hold_folder
from mvfa.memory import shared_memory, tune_process
from mvfa.methods.base import Method
from mvfa.options import Options
from mvfa.run_files import FILES
from utils import writable

PASSED_ON = 3  # batches of a worker that wait in shared memory: two made ahead, and one in use


@dataclass(frozen=True)
class Environment:
    """Device and processes of a run, and the settings that they decide where no flag does.

    workers: processes that decode images; test_batch_size: images scored at once, which changes no
    score; started: `time.perf_counter()` at the start of the run.
    """

    device: torch.device
    precision: str
    workers: int
    test_batch_size: int
    world: World
    started: float = field(default_factory=time.perf_counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings, for files."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "workers": self.workers,
            "test_batch_size": self.test_batch_size,
        }


def set_up(options: Options) -> Environment:
    """Prepare the process, join others that torchrun started, and choose the device.

    Raises UserError for a device or an output folder that cannot be used, or that another run uses.
    """
    started = time.perf_counter()
    tune_process()
    world = join()
    detector = options.detector.name
    writable(options.out, "--out", [detector] if detector else FILES)
    device = choose_device(options.device)
    if world.first:
        hold_outputs(options)
    exact_products()
    cuda = is_cuda(device)
    if options.cuda_graphs and not cuda:
        raise UserError(f"--cuda_graphs yes needs a CUDA device; got {device}; leave the flag out")
    test_batch_size = options.test_batch_size or (32 if cuda else 8)
    workers = options.workers if options.workers is not None else (4 if cuda else 0)
    batch_size = max(test_batch_size, options.batch_size)
    return Environment(
        device=device,
        precision=options.precision or default_precision(device),
        workers=fitting_workers(workers, batch_size * 3 * options.img_size**2, world),
        test_batch_size=test_batch_size,
        world=world,
        started=started,
    )


def fitting_workers(workers: int, batch_bytes: int, world: World) -> int:
    """Return how many of `workers` processes have room for their batches in shared memory.

    A container's /dev/shm often has 64 MB, and writing beyond that ends a process.
    """
    free = shared_memory()
    if not workers or free is None:
        return workers
    fitting = min(workers, free // (PASSED_ON * batch_bytes * world.size))
    if fitting < workers:
        remedy = "make it larger, by docker run --shm-size, for more"
        note(f"/dev/shm has room for {fitting} of {workers} workers; {remedy}", world)
    return fitting


def hold_outputs(options: Options) -> None:
    """Keep other runs from what this one writes, until its main ends. Raises UserError."""
    if options.detector.name:
        hold_file(options.detector, "--out FILE")
        return
    if options.save_model:
        writable(options.save_path, "--save_path", [options.checkpoint.name, options.state.name])
    hold_folder(options.out, "--out")
    if options.save_model:
        hold_file(options.checkpoint, "--save_path DIR")


def compile_network(method: Method, options: Options, device: torch.device) -> None:
    """Compile a method's network with torch.compile if --compile asks for it.

    Raises UserError where what torch.compile needs is missing.
    """
    if not options.compile:
        return
    cpu = device.type == "cpu"
    compilers = [os.environ.get("CXX", "g++")] if cpu else [os.environ.get("CC", "gcc"), "clang"]
    if is_cuda(device) and find_spec("triton") is None:
        raise UserError("--compile yes needs Triton on a GPU; pip install triton or leave it out")
    if (cpu or is_cuda(device)) and not any(map(shutil.which, compilers)):
        needed = "a C++ compiler on a CPU" if cpu else "a C compiler on a GPU"
        remedy = f"install {compilers[0]} or leave the flag out"
        raise UserError(f"--compile yes needs {needed}; {remedy}")
    method.compile_network()

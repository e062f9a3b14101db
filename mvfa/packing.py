"""Whether training steps use packed products (CLIP.packed), and the context in which they do."""

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from CLIP import packed
from CLIP.adapter import MVFA
from CLIP.packed import PackedTower
from errors import UserError
from mvfa.environment import Environment
from mvfa.memory import installed_memory
from mvfa.methods import catalog
from mvfa.methods.base import Method
from mvfa.methods.mvfa import Mvfa
from mvfa.options import Options

PACKING_MEMORY = 15e9  # bytes a process on machines where weights are packed by default: "16 GB"


def packable(options: Options, env: Environment) -> bool:
    """Return whether a run's frozen weights can be packed for its training steps."""
    plain = env.device.type == "cpu" and env.precision == "fp32" and not options.compile
    plain &= options.method == catalog.MVFA
    return plain and packed.available()


def packs(options: Options, env: Environment) -> bool:
    """Return whether they are packed.

    By default only where a gain was measured: for steps of one image on an Intel processor, with
    memory to spare. Raises UserError if --pack yes asks for it where it cannot be.
    """
    if options.pack and not packable(options, env):
        compiled = ", --compile yes" if options.compile else ""
        mkl = "with" if packed.available() else "without"
        raise UserError(
            "--pack yes needs a CPU, fp32, a torch with Intel MKL and no --compile; got "
            f"{env.device}, {env.precision}, {mkl} MKL{compiled}; leave the flag out"
        )
    if options.pack is not None:
        return options.pack
    roomy = installed_memory() >= PACKING_MEMORY * env.world.size
    single = options.batch_size == 1
    return packable(options, env) and roomy and single and packed.gains_here()


class PackedSteps:
    """A context in which a model's blocks after the first adapter are packed ones.

    They are made when it is first entered, which takes seconds. It can be entered again.
    """

    def __init__(self, model: MVFA, batch_size: int) -> None:
        self.model = model
        self.rows = batch_size * len(model.visual.positional_embedding)
        self.tower: PackedTower | None = None
        self.active: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> None:
        if self.tower is None:
            first = self.model.levels[0]
            self.tower = PackedTower(self.model.visual.transformer, first, self.rows)
        self.active = self.tower.swapped_in()
        self.active.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.active.__exit__(kind, error, trace)


def packed_steps(
    method: Method, options: Options, env: Environment
) -> AbstractContextManager[None]:
    """Return the context for a run's training steps. Scores are never computed within."""
    if not (isinstance(method, Mvfa) and packs(options, env)):
        return nullcontext()
    return PackedSteps(method.model, options.batch_size)

"""Read a pickle as data: nothing is imported, nothing is called. Needs no torch.

A pickle is a program for a small stack machine, and two of its operations, "import a name" and
"call it", are why loading one may run anything. The machine here takes the operations that files of
torch.save and torch.jit.save use. A name stays a name, and what a call stands for is built by
functions that are passed in, which know a few names; all others are refused.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 2**22  # of a pickle; that of CLIP ViT-L/14 has 0.1 MB
MOST_OPERATIONS = 2**18  # a second; that of CLIP ViT-L/14 has some 20,000
# what broken or hostile pickles raise in pickletools and in the machine
PICKLE_ERRORS = (ValueError, LookupError, TypeError, OverflowError, AttributeError, MemoryError)


class PickleError(Exception):
    """A pickle that is damaged, too long, or holds something that is not data."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle would import, such as `collections.OrderedDict`."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """An object of a class that is not looked at: the class's name, and the object's content."""

    kind: Name
    state: Any = field(default=None, repr=False)


Call = Callable[[tuple[Any, ...]], Any]


class _Mark:
    """Where a group of values begins on the stack."""


class Machine:
    """The stack machine for one pickle.

    Args:
        calls: functions by the full names that they stand for; each gets the arguments, as data.
        persistent: makes a value from a persistent id, which stands for what lies elsewhere.
        classes: beginning of the modules whose classes may have instances; "": none.

    """

    def __init__(
        self, calls: Mapping[str, Call], persistent: Callable[[Any], Any], classes: str = ""
    ) -> None:
        self.calls = calls
        self.persistent = persistent
        self.classes = classes
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return the value that a pickle holds. Raises PickleError."""
        if len(data) > MOST_BYTES:
            raise PickleError(f"its pickle has more than {MOST_BYTES} bytes")
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count > MOST_OPERATIONS:
                    raise PickleError(f"its pickle has more than {MOST_OPERATIONS} operations")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except PICKLE_ERRORS as error:
            raise PickleError("its pickle is damaged") from error
        raise PickleError("its pickle is cut off")

    def step(self, operation: str, argument: Any) -> None:
        """Do one operation."""
        if operation in CONSTANTS:
            self.stack.append(CONSTANTS[operation]())
        elif operation in LITERALS:
            self.stack.append(argument)
        elif operation in METHODS:
            METHODS[operation](self, argument)
        elif operation not in IGNORED:
            raise PickleError(f"its pickle has the operation {operation}, which data does not need")

    def pop_group(self) -> list[Any]:
        """Remove the values above the last mark, and the mark; return the values."""
        position = len(self.stack) - 1
        while not isinstance(self.stack[position], _Mark):
            position -= 1
            if position < 0:
                raise PickleError("its pickle is damaged")
        group = self.stack[position + 1 :]
        del self.stack[position:]
        return group

    def name(self, argument: str) -> None:
        """Push a name, written as "module name"."""
        self.stack.append(Name(*argument.split(" ", 1)))

    def stacked_name(self, _: Any) -> None:
        """Push a name whose two parts lie on the stack."""
        name = self.stack.pop()
        module = self.stack.pop()
        self.stack.append(Name(str(module), str(name)))

    def keep(self, number: int | None) -> None:
        """Remember the top of the stack; without a number as the next one."""
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def recall(self, number: int) -> None:
        """Push what was remembered."""
        self.stack.append(self.memo[number])

    def fetch(self, _: Any) -> None:
        """Replace a persistent id by its value."""
        self.stack.append(self.persistent(self.stack.pop()))

    def pack(self, size: int) -> None:
        """Replace the last `size` values by a tuple."""
        if len(self.stack) < size:
            raise PickleError("its pickle is damaged")
        values = tuple(self.stack[-size:])
        del self.stack[-size:]
        self.stack.append(values)

    def call(self, _: Any) -> None:
        """Replace a name and its arguments by what the call stands for."""
        arguments = self.stack.pop()
        name = self.stack.pop()
        if not isinstance(name, Name) or str(name) not in self.calls:
            raise PickleError(f"it holds {_shown(name)}, which is neither a tensor nor plain data")
        self.stack.append(self.calls[str(name)](tuple(arguments)))

    def create(self, _: Any) -> None:
        """Replace a class and its arguments by an instance."""
        self.stack.pop()
        kind = self.stack.pop()
        known = (
            isinstance(kind, Name) and bool(self.classes) and kind.module.startswith(self.classes)
        )
        if not known:
            raise PickleError(f"it holds {_shown(kind)}, which is neither a tensor nor plain data")
        self.stack.append(Instance(kind))

    def fill(self, _: Any) -> None:
        """Give an instance its content. Attributes of dictionaries are dropped."""
        state = self.stack.pop()
        owner = self.stack[-1]
        if isinstance(owner, Instance):
            owner.state = state
        elif not isinstance(owner, dict):
            raise PickleError(f"it sets attributes of {_shown(owner)}")

    def extend(self, values: list[Any]) -> None:
        """Append values to the list on the stack."""
        if type(self.stack[-1]) is not list:
            raise PickleError("its pickle is damaged")
        self.stack[-1].extend(values)

    def update(self, pairs: list[Any]) -> None:
        """Put keys and values into the dictionary on the stack."""
        if type(self.stack[-1]) is not dict or not all(map(is_key, pairs[::2])):
            raise PickleError("its pickle is damaged")
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def append_one(self, _: Any) -> None:
        """Append the top of the stack to the list below it."""
        self.extend([self.stack.pop()])

    def set_one(self, _: Any) -> None:
        """Put the two top values into the dictionary below them."""
        value = self.stack.pop()
        key = self.stack.pop()
        self.update([key, value])


def is_key(value: Any) -> bool:
    """Return whether a value may be a key: text, or a whole number as optimisers have them."""
    return isinstance(value, str) or (isinstance(value, int) and 0 <= value < MOST_BYTES)


def _shown(value: Any) -> str:
    """Say what a value is, for a message."""
    text = str(value) if isinstance(value, Name) else f"a value of type {type(value).__name__}"
    return "".join(c if c.isprintable() else "?" for c in text[:80])


IGNORED = ("PROTO", "FRAME")
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": _Mark,
}
LITERALS = (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINBYTES",
    "SHORT_BINBYTES",
)
METHODS: dict[str, Callable[[Machine, Any], None]] = {
    "GLOBAL": Machine.name,
    "STACK_GLOBAL": Machine.stacked_name,
    "BINPUT": Machine.keep,
    "LONG_BINPUT": Machine.keep,
    "MEMOIZE": Machine.keep,
    "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall,
    "BINPERSID": Machine.fetch,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_group())),
    "TUPLE1": lambda machine, _: machine.pack(1),
    "TUPLE2": lambda machine, _: machine.pack(2),
    "TUPLE3": lambda machine, _: machine.pack(3),
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.create,
    "BUILD": Machine.fill,
    "APPEND": Machine.append_one,
    "APPENDS": lambda machine, _: machine.extend(machine.pop_group()),
    "SETITEM": Machine.set_one,
    "SETITEMS": lambda machine, _: machine.update(machine.pop_group()),
}

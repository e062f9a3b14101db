"""Pickles are read as data: names are not imported, calls are not made, effort is bounded."""

import os
import pickle
import pickletools
import time

import pytest

from CLIP import pickles
from CLIP.pickles import MOST_BYTES, MOST_OPERATIONS, Instance, Machine, PickleError
from tests.archives import Call


def read(data: bytes, **kwargs):
    return Machine({}, lambda identity: identity, **kwargs).run(data)


@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_data_comes_back(protocol):
    shared = [1, 2]
    content = {
        "numbers": [0, 255, 256, 65_536, -1, 2**40, -(2**70), 0.5],
        "words": ("", "ü", "x" * 300),
        "others": [None, True, False, (), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "shared": [shared, shared],
        3: b"bytes" if protocol == 4 else "text",
    }
    found = read(pickle.dumps(content, protocol=protocol))
    assert found == content
    assert found["shared"][0] is found["shared"][1]


def test_nothing_is_called(tmp_path):
    made = tmp_path / "made"
    data = pickle.dumps(Call(os.mkdir, str(made)), protocol=2)
    with pytest.raises(PickleError, match=r"it holds (posix|nt)\.mkdir, which is neither a tensor"):
        read(data)
    assert not made.exists()
    pickle.loads(data)
    assert made.exists()  # it is what it is meant to be


def test_a_known_call_is_built_by_the_function_passed_in():
    data = pickle.dumps(Call(os.path.join, "a", "b"), protocol=2)
    name = f"{os.path.join.__module__}.join"
    assert Machine({name: lambda arguments: arguments}, None).run(data) == ("a", "b")


def test_objects_of_allowed_modules_are_inert():
    data = b"\x80\x02c__torch__ Some\n".replace(b" ", b"\n") + b")\x81}X\x01\x00\x00\x00aK\x05sb."
    found = read(data, classes="__torch__")
    assert isinstance(found, Instance)
    assert str(found.kind) == "__torch__.Some"
    assert found.state == {"a": 5}
    with pytest.raises(PickleError, match=r"__torch__\.Some"):
        read(data)
    with pytest.raises(PickleError, match="sets attributes"):
        read(b"\x80\x02]}b.")


def test_attributes_of_a_dictionary_are_dropped():
    assert read(b"\x80\x02}}X\x01\x00\x00\x00aK\x05sb.") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02K", "damaged"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02]K\x01K\x02s.", "damaged"),
        (b"\x80\x02}]K\x02s.", "damaged"),
        (b"\x80\x02}G\x00\x00\x00\x00\x00\x00\x00\x00K\x02s.", "damaged"),
        (b"\x80\x02K\x01\x87.", "damaged"),
        (b"\x80\x02K\x01t.", "damaged"),
        (b"\x80\x02B\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"I1\n.", "operation INT"),
        (b"(i__main__\nX\n.", "operation INST"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x04\x8f.", "operation EMPTY_SET"),
        (b"\x80\x05\x96" + bytes(8) + b".", "operation BYTEARRAY8"),
        (b"\x80\x02K\x01K\x01R.", "a value of type int"),
        (b"\x80\x02" + b"N" * (MOST_OPERATIONS + 1) + b".", "operations"),
        (b"\x80\x02" + b"N" * MOST_BYTES + b".", "bytes"),
    ],
)
def test_odd_pickles_are_refused(data, message):
    start = time.perf_counter()
    with pytest.raises(PickleError, match=message):
        read(data)
    assert time.perf_counter() - start < 5


def test_every_operation_is_one_that_pickles_have():
    names = {opcode.name for opcode in pickletools.opcodes}
    assert {*pickles.IGNORED, *pickles.CONSTANTS, *pickles.LITERALS, *pickles.METHODS} <= names

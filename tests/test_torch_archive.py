"""Archives of torch.save and torch.jit.save: what torch reads, with nothing run."""

import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from CLIP.stored import DamagedError
from CLIP.tensor_files import read_tensors
from CLIP.tensor_index import problem
from tests.archives import Call, pickled, tensor, write_archive


class Inner(torch.nn.Module):
    """A module with a parameter, a buffer, plain attributes and one of its own below it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.in_proj_weight = torch.nn.Parameter(torch.randn(6, 2, generator=generator))
        self.register_buffer("position_ids", torch.arange(4))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.linear = torch.nn.Linear(2, 2)
        self.mask = torch.full((2, 2), float("-inf"))  # no part of the state dict
        self.sizes = [1, 2]
        self.name = "inner"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.mask[0, 0] + self.passing


class Outer(torch.nn.Module):
    """A module with a list of modules, which names are numbers of, and half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(Inner(1), Inner(2))
        self.proj = torch.nn.Parameter(torch.randn(4, 3).t()[:, 1:].half())  # not contiguous
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x) * self.scale


@pytest.fixture(params=["script", "trace"])
def scripted(request, tmp_path):
    """Return a TorchScript archive."""
    path = tmp_path / "archive.pt"
    outer = Outer()
    made = torch.jit.script(outer) if request.param == "script" else None
    (made or torch.jit.trace(outer, torch.ones(1, 2))).save(path)
    return path


def same(found: dict, expected: dict) -> None:
    """Compare tensors, their types and their layouts."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].stride() == value.stride()
        assert torch.equal(found[name], value)


def test_a_torchscript_archive_gives_its_state_dict(scripted):
    expected = torch.jit.load(scripted).state_dict()
    assert "blocks.1.linear.weight" in expected
    same(read_tensors(scripted), expected)
    assert problem(scripted) == ""  # the infinite mask is not read


def test_an_archive_without_lists_of_buffers_gives_all_tensors(scripted, tmp_path):
    """So torch before 1.6 wrote them."""
    old = tmp_path / "old.pt"
    with zipfile.ZipFile(scripted) as source, zipfile.ZipFile(old, "w") as target:
        for info in source.infolist():
            lines = source.read(info).splitlines(keepends=True)
            kept = [line for line in lines if b"__buffers__" not in line]
            target.writestr(
                info.filename, b"".join(kept if info.filename.endswith(".py") else lines)
            )
    masks = {"blocks.0.mask", "blocks.1.mask"}
    with zipfile.ZipFile(scripted) as archive:
        masks = masks if b"mask" in archive.read("archive/data.pkl") else set()  # traced: constants
    assert set(read_tensors(old)) == set(torch.jit.load(scripted).state_dict()) | masks


@pytest.mark.parametrize("protocol", [2, 4])
def test_content_of_torch_save_comes_back(tmp_path, protocol):
    base = torch.arange(12.0).reshape(3, 4)
    module = torch.nn.BatchNorm1d(3)
    state = module.state_dict()  # an OrderedDict with attributes
    content = {
        "state": state,
        "parameter": torch.nn.Parameter(base),
        "views": [base[:, 1], base.t(), base[1:]],
        "types": {
            str(t): torch.ones(2, dtype=t) for t in (torch.int64, torch.bfloat16, torch.bool)
        },
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(2.0),
        "about": {"shot": 4, "list": [1, None, "ü"], "pair": (1, 2.5)},
    }
    path = tmp_path / "x.pt"
    torch.save(content, path, pickle_protocol=protocol)
    found = read_tensors(path)
    same(found["state"], state)
    same(dict(enumerate(found["views"])), dict(enumerate(content["views"])))
    same(found["types"], content["types"])
    for name in ("parameter", "empty", "one"):
        assert torch.equal(found[name], content[name])
    assert found["about"] == content["about"]
    assert problem(path) == ""


def test_an_untyped_storage_is_read(tmp_path):
    numbers = torch.arange(4.0)
    content = Call(
        torch._utils._rebuild_tensor_v3,
        *tensor(16, (4,), cls=torch.UntypedStorage).arguments,
        torch.float32,
    )
    path = write_archive(tmp_path / "x.pt", content, {"0": numbers.numpy().tobytes()})
    assert torch.equal(read_tensors(path), numbers)


def test_numbers_at_odd_places_are_read(tmp_path):
    numbers = torch.arange(5.0)
    found = set()
    for length in range(1, 5):
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x" * length, b"")
            archive.writestr("a/data.pkl", pickled({"w": tensor(5, (5,))}))
            archive.writestr("a/data/0", numbers.numpy().tobytes())
        assert torch.equal(read_tensors(path)["w"], numbers)
        found.add(path.read_bytes().index(numbers.numpy().tobytes()) % 4)
    assert len(found) == 4


def test_writing_to_a_tensor_does_not_change_the_file(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(4)}, path)
    before = path.read_bytes()
    read_tensors(path)["w"].zero_()
    assert path.read_bytes() == before


def test_a_byte_changed_is_found(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.arange(2.0**19)}, path)  # two slices
    whole = bytearray(path.read_bytes())
    where = whole.index(torch.arange(8.0).numpy().tobytes())
    for position in (where, where + 2**20 - 1, where + 2**20, where + 2**21 - 1):
        changed = whole.copy()
        changed[position] ^= 1
        path.write_bytes(changed)
        torch.load(path, weights_only=True)  # does not see it
        assert problem(path) == "data/0 differs from its checksum"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_found(tmp_path, dtype, value):
    limits = torch.finfo(dtype)
    weights = torch.tensor([limits.max, limits.min, limits.tiny, 0.0, -0.0], dtype=dtype).repeat(9)
    for save, name in ((torch.save, "x.pt"), (save_file, "x.safetensors")):
        path = tmp_path / name
        save({"w": weights}, path)
        assert problem(path) == ""
        broken = weights.clone()
        broken[-1] = value
        save({"w": broken}, path)
        assert "not finite" in problem(path)


STORED = {"0": bytes(64), "large": bytes(2**16)}
LYING = {
    "more numbers than the record": tensor(32, (32,)),
    "fewer numbers than the record": tensor(8, (8,)),
    "a shape larger than the storage": tensor(16, (17,)),
    "an offset beyond the storage": tensor(16, (16,), offset=1),
    "a negative offset": tensor(16, (16,), offset=-1),
    "a huge shape": tensor(16, (2**62, 2**62)),
    "a huge shape without steps": tensor(16, (10**6, 10**6), stride=(0, 0)),
    "a step beyond the storage": tensor(16, (2, 2), stride=(15, 2)),
    "a negative step": tensor(16, (2, 2), stride=(-1, 1)),
    "a step too few": tensor(16, (2, 2), stride=(1,)),
    "a size that is no number": tensor(16, ("a",), stride=(1,)),
    "a fraction": tensor(16, (2.0,), stride=(1,)),
    "many sizes": tensor(16, (1,) * 65),
    "a missing record": tensor(16, (16,), key="1"),
    "a record outside": tensor(16, (16,), key="../../../../etc/passwd"),
    "no numbers": Call(torch._utils._rebuild_tensor_v2, 5, 0, (1,), (1,), False, {}),
    "too few arguments": Call(torch._utils._rebuild_tensor_v2, 5),
    "numbers of an unknown type": tensor(16, (16,), cls=os.PathLike),
    "one storage with two types": [tensor(16, (16,)), tensor(32, (32,), cls=torch.HalfStorage)],
    "one record in many tensors": [tensor(2**14, (2**14,), key="large") for _ in range(9)],
}


@pytest.mark.parametrize("kind", LYING)
def test_lies_are_refused_before_memory_is_taken(tmp_path, kind):
    path = write_archive(tmp_path / "x.pt", {"w": LYING[kind]}, STORED)
    with pytest.raises(DamagedError):
        read_tensors(path)


def test_the_helper_writes_what_torch_reads(tmp_path):
    path = write_archive(tmp_path / "x.pt", {"w": tensor(16, (4, 4))}, STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    assert torch.equal(torch.load(path, weights_only=True)["w"], torch.zeros(4, 4))
    assert torch.equal(read_tensors(path)["w"], torch.zeros(4, 4))


OTHERS = {
    "a sparse tensor": (torch.eye(3).to_sparse(), "sparse"),
    "a quantised tensor": (
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "QInt8",
    ),
    "a tensor without numbers": (torch.empty(3, device="meta"), "without numbers"),
    "a module": (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    "a function": (os.getcwd, None),
    "a set": ({1, 2}, "set"),
    "numbers of numpy": (torch.ones(2).numpy(), "numpy"),
    "a device": (torch.device("cpu"), r"torch\.device"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_dense_tensor_is_named(tmp_path, kind):
    content, word = OTHERS[kind]
    torch.save({"w": content}, tmp_path / "x.pt")
    if word is None:  # a name alone is no tensor, and is not imported
        assert not isinstance(read_tensors(tmp_path / "x.pt")["w"], torch.Tensor)
    else:
        with pytest.raises(DamagedError, match=f"it holds .*{word}"):
            read_tensors(tmp_path / "x.pt")


def test_modules_within_themselves_end(tmp_path):
    path = tmp_path / "x.pt"
    loop = (  # a module whose attribute "a" is the module
        b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", loop)
        archive.writestr("a/constants.pkl", b"\x80\x02).")
    with pytest.raises(DamagedError, match="within itself"):
        read_tensors(path)


@pytest.mark.parametrize("inner", [b"h\x00a", b"(h\x00h\x00h\x00e"])
def test_lists_within_themselves_end(tmp_path, inner):
    path = write_archive(tmp_path / "x.pt", b"\x80\x02]q\x00" + inner + b".")
    with pytest.raises(DamagedError, match="within itself"):
        read_tensors(path)


def test_bombs_are_refused(tmp_path):
    deflated = zipfile.ZIP_DEFLATED
    path = write_archive(tmp_path / "a.pt", bytes(2**26), compression=deflated)
    with pytest.raises(DamagedError, match=r"data\.pkl has more than"):
        read_tensors(path)
    zeros = {"0": bytes(2**26)}
    path = write_archive(
        tmp_path / "b.pt", {"w": tensor(2**24, (2**24,))}, zeros, compression=deflated
    )
    with pytest.raises(DamagedError, match="tensors are compressed"):
        read_tensors(path)

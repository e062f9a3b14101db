"""Own files come back as they were, and one that was changed is refused."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from CLIP.stored import DamagedError
from errors import UserError
from mvfa import checkpoint, detector_file, own_files
from mvfa.detector import Detector
from mvfa.detector_file import read_description, read_tensors
from mvfa.state_file import State, read_state, write_state
from tests.archives import rewritten
from tests.detectors import random_detector
from tests.image_sets import drawn_method
from tests.methods import load_mvfa
from tests.odd_weights import KINDS

GROUPS = {
    "first": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([-0.5])},
    "second": {"a": torch.ones(2, dtype=torch.float16)},
}
ABOUT = {"format": 1, "shot": 4, "shots": {"normal": ["ü.png"]}, "rate": 1e-3, "none": None}
KEYS = tuple(GROUPS)
CHANGES = 400  # bytes of a file that are changed, one at a time


def written(path: Path, **about) -> Path:
    path.write_bytes(own_files.encode(GROUPS, ABOUT | about))
    return path


def test_content_comes_back_with_its_digest(tmp_path):
    groups, about, digest = own_files.read(written(tmp_path / "x.pt"), KEYS)
    assert about == ABOUT
    assert digest == own_files.digest_of(GROUPS, ABOUT)
    for key, group in GROUPS.items():
        assert list(groups[key]) == list(group)
        for name, value in group.items():
            assert torch.equal(groups[key][name], value)
            assert groups[key][name].dtype == value.dtype


def test_a_tensor_does_not_depend_on_the_file_any_more(tmp_path):
    path = written(tmp_path / "x.pt")
    groups = own_files.read(path, KEYS).groups
    with path.open("r+b") as file:
        file.truncate(0)
    assert torch.equal(groups["first"]["a"], GROUPS["first"]["a"])


def test_a_file_without_a_digest_is_read(tmp_path):
    torch.save({**GROUPS, "about": ABOUT, "more": [1]}, tmp_path / "x.pt")
    groups, about, digest = own_files.read(tmp_path / "x.pt", ("first", "third"))
    assert about == ABOUT
    assert digest is None
    assert list(groups) == ["first"]


def test_a_change_with_right_checksums_is_seen(tmp_path):
    data = own_files.encode(GROUPS, ABOUT)
    (tmp_path / "x.pt").write_bytes(rewritten(data, torch.arange(6.0), torch.arange(1.0, 7.0)))
    with pytest.raises(DamagedError, match="not what was written"):
        own_files.read(tmp_path / "x.pt", KEYS)


@pytest.mark.parametrize("about", [{"shot": 5}, {"more": 1}, {"rate": 2e-3}])
def test_a_change_of_the_description_is_seen(tmp_path, about):
    described = ABOUT | {"sha256": own_files.digest_of(GROUPS, ABOUT)} | about
    torch.save({**GROUPS, "about": described}, tmp_path / "x.pt")
    with pytest.raises(DamagedError, match="not what was written"):
        own_files.read(tmp_path / "x.pt", KEYS)


def test_a_file_may_not_be_larger_than_asked_for(tmp_path):
    path = written(tmp_path / "x.pt")
    size = path.stat().st_size
    assert own_files.read(path, KEYS, size).about == ABOUT
    with pytest.raises(DamagedError, match=f"it has more than {size - 1} bytes"):
        own_files.read(path, KEYS, size - 1)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64]
)
def test_other_types_are_refused(tmp_path, dtype):
    torch.save({"first": {"a": torch.ones(2, dtype=dtype)}}, tmp_path / "x.pt")
    with pytest.raises(DamagedError, match=r"a is of type .*; allowed are float32 and float16"):
        own_files.read(tmp_path / "x.pt", KEYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, dtype, value):
    torch.save({"first": {"a": torch.tensor([1, value], dtype=dtype)}}, tmp_path / "x.pt")
    with pytest.raises(DamagedError, match="not finite"):
        own_files.read(tmp_path / "x.pt", KEYS)


@pytest.mark.parametrize(
    "content", [5, [1], {"first": 5}, {"first": {3: torch.ones(1)}}, {"about": 5}]
)
def test_other_content_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(DamagedError):
        own_files.read(tmp_path / "x.pt", KEYS)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files_are_no_checkpoints(tmp_path, kind):
    (tmp_path / "x.pth").write_bytes(KINDS[kind]())
    with pytest.raises(UserError, match=r"x\.pth is (not a readable|no MVFA) checkpoint") as error:
        load_mvfa(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------- changed bytes


def changes(data: bytes, seed: int):
    """Yield copies of a file with one byte changed, at places of all kinds."""
    draw = random.Random(seed)
    ends = [*range(64), *range(len(data) - 64, len(data))]
    for position in [*ends, *draw.sample(range(len(data)), CHANGES)]:
        changed = bytearray(data)
        changed[position] ^= draw.randrange(1, 256)
        yield bytes(changed)


def check_changes(path: Path, read) -> None:
    """Check that a changed file is refused, or has the same content: `read` returns that."""
    data = path.read_bytes()
    expected = read(path)
    refused = 0
    for number, changed in enumerate(changes(data, seed=0)):
        other = path.with_name(f"{number}-{path.name}")  # hashes are remembered by name
        other.write_bytes(changed)
        try:
            found = read(other)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert found == expected
        other.unlink()
    assert refused > CHANGES / 2


def plain(tensors) -> dict:
    """Return tensors as what compares: types, shapes and bytes."""
    return {n: (t.dtype, t.shape, t.numpy().tobytes()) for n, t in tensors.items()}


def test_a_changed_byte_of_a_checkpoint_changes_nothing(tiny, tmp_path):
    def read(path: Path):
        found = load_mvfa(path)
        return found.about, {key: plain(group) for key, group in found.adapters.items()}

    path = tmp_path / "x.pth"
    checkpoint.save(path, drawn_method(tiny).state(), {"object": "Brain"})
    check_changes(path, read)


def test_a_changed_byte_of_a_detector_changes_nothing(tiny_path, tmp_path):
    def read(path: Path):
        about = read_description(path)
        return about, plain(read_tensors(path, about))

    random_detector(tiny_path).save(tmp_path / "x.detector")
    check_changes(tmp_path / "x.detector", read)


def test_a_changed_byte_of_a_state_changes_nothing(tmp_path):
    def read(path: Path):
        state = read_state(path)
        return state.values, plain(state.tensors)

    write_state(tmp_path / "x.state", State(GROUPS["first"], ABOUT))
    check_changes(tmp_path / "x.state", read)


def test_a_detector_of_numbers_that_are_not_finite_is_refused(tiny_path, tmp_path):
    """Its hashes are right: whoever made it could make those, too."""
    path = tmp_path / "x.detector"
    random_detector(tiny_path).save(path)
    about = read_description(path)
    tensors = load_file(path)
    tensors["normal_scores"][0] = float("nan")
    about["tensors_sha256"] = detector_file.tensors_hash(tensors)
    text = detector_file.json.dumps(about)
    metadata = {detector_file.KEY: text, detector_file.DIGEST: detector_file.text_hash(text)}
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(UserError, match="has numbers that are not finite"):
        Detector.load(path, clip_path=tiny_path)


def test_a_detector_without_a_digest_of_its_description_is_read(tiny_path, tmp_path):
    path = tmp_path / "x.detector"
    random_detector(tiny_path).save(path)
    metadata = {detector_file.KEY: detector_file.json.dumps(read_description(path))}
    save_file(load_file(path), path, metadata=metadata)
    assert Detector.load(path, clip_path=tiny_path).settings.object == "Brain"


# ---------------------------------------------------------------------- a digest that is lost


def test_a_checkpoint_without_its_digest_is_refused_but_for_older_ones(tiny, tmp_path):
    adapters = drawn_method(tiny).state()
    for about, refused in (({"format": 1, "ended": True}, True), ({"format": 1}, False)):
        torch.save({**adapters, "about": about}, tmp_path / "x.pth")
        if refused:
            with pytest.raises(UserError, match="it has lost its digest"):
                load_mvfa(tmp_path / "x.pth")
        else:
            assert load_mvfa(tmp_path / "x.pth").about == about


def test_a_detector_whose_digest_has_another_name_is_refused(tiny_path, tmp_path):
    path = tmp_path / "x.detector"
    random_detector(tiny_path).save(path)
    data = path.read_bytes()
    name = detector_file.DIGEST.encode()
    assert data.count(name) == 1
    path.write_bytes(data.replace(name, name[:-1] + b"7"))
    with pytest.raises(UserError, match="its description is not that it was written with"):
        read_description(path)


def test_equal_detectors_are_equal_files(tiny_path, tmp_path):
    detector = random_detector(tiny_path)
    for number in range(6):
        detector.save(tmp_path / f"{number}.detector")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    tensors = load_file(tmp_path / "0.detector")
    read = read_tensors(tmp_path / "0.detector", read_description(tmp_path / "0.detector"))
    assert plain(read) == plain(tensors)

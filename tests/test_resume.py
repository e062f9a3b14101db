"""A training that was stopped anywhere goes on and ends as if it had not been."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import mvfa.results
from CLIP.adapter import MVFA
from errors import UserError
from mvfa import resume
from mvfa.engine import Trainer
from mvfa.selection import Selection
from mvfa.state_file import State, group, grouped, read_state, write_state
from tests.script_runs import Runs

# of metrics.json: what no two runs share
TIMES = ("seconds", "peak_memory_bytes", "sha256")


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path, monkeypatch) -> Runs:
    monkeypatch.setattr(resume, "WRITING_SHARE", 1e9)  # a state whenever there can be one
    return Runs(tiny_path, demo_root, tmp_path)


class StoppedError(BaseException):
    """As Ctrl-C, but not at the tests' own hand."""


@contextmanager
def stopped(owner: object, name: str, calls: int) -> Iterator[None]:
    """Stop a training within when a function or method was called so often and is called again."""
    function = getattr(owner, name)
    left = calls

    def call(*arguments, **more) -> object:
        nonlocal left
        if left == 0:
            raise StoppedError
        left -= 1
        return function(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        with pytest.raises(StoppedError):
            yield


def results(runs: Runs, script: str) -> tuple[dict, bytes, bytes]:
    """Return metrics without times and the bytes of scores.csv and the checkpoint."""
    metrics = {k: v for k, v in runs.metrics(script).items() if k not in TIMES}
    (adapters,) = runs.checkpoints.iterdir()
    return metrics, (runs.out(script) / "scores.csv").read_bytes(), adapters.read_bytes()


def undisturbed(runs: Runs, script: str, obj: str, *more) -> tuple[dict, bytes, bytes]:
    """Return the results of a training that is not stopped, and remove them."""
    runs(script, obj, *more)
    expected = results(runs, script)
    shutil.rmtree(runs.checkpoints)
    shutil.rmtree(runs.out(script))
    return expected


def goes_on(printed: str) -> list[str]:
    """Return after which epochs the trainings of some output went on."""
    return re.findall(r"note: going on after (.*) \(.*\.state\)", printed)


STEPS = 44  # of an epoch: 2 + 2 shots in eleven versions
FEW = ("train_few", "Brain", "--epoch", 4, "--learning_rate", 1e-2)


@pytest.mark.parametrize("rule", ["test", "valid", "last"])
def test_few_shot_goes_on_after_any_epoch(runs, capsys, rule):
    """Stopped within epochs, by a test of the adapters, and while results are written."""
    arguments = (*FEW, "--select", rule)
    expected = undisturbed(runs, *arguments)
    capsys.readouterr()
    with stopped(Trainer, "step", STEPS + 7):
        runs(*arguments)
    assert [path.name for path in runs.checkpoints.iterdir()] == ["Brain-2shot.state"]
    assert not runs.out("train_few").joinpath("metrics.json").exists()
    with stopped(Trainer, "step", STEPS):
        runs(*arguments)
    with stopped(Selection, "add_test", 1 if rule == "test" else 0):
        runs(*arguments)
    with stopped(mvfa.results, "write_json", 0):
        runs(*arguments)
    runs(*arguments)
    assert goes_on(capsys.readouterr().err) == [f"{done} of 4 epochs" for done in (1, 2, 3, 4)]
    assert results(runs, "train_few") == expected


ZERO = ("train_zero", "Liver", "--epoch", 2, "--batch_size", 3, "--learning_rate", 1e-2)


@pytest.mark.parametrize(
    ("rule", "gigabytes"), [("test", 8), ("test", 0.0005), ("valid", 0.001), ("last", 8)]
)
def test_zero_shot_goes_on_within_an_epoch(runs, capsys, rule, gigabytes):
    """Stopped in both epochs; features are cached in the batches that they were cached in."""
    arguments = (*ZERO, "--select", rule, "--cache_gb", gigabytes)
    expected = undisturbed(runs, *arguments)
    capsys.readouterr()
    for steps in (4, 5, 7, 9, 1):  # of 17 in an epoch: moments are before 0, 3, 6, 9, 12, 15
        with stopped(Trainer, "step", steps):
            runs(*arguments)
    runs(*arguments)
    assert goes_on(capsys.readouterr().err) == [
        "0 of 2 epochs and 1 parts of the next",
        "0 of 2 epochs and 2 parts of the next",
        "0 of 2 epochs and 4 parts of the next",
        "1 of 2 epochs and 1 parts of the next",
        "1 of 2 epochs and 1 parts of the next",  # one step made no part whole
    ]
    assert results(runs, "train_zero") == expected


@pytest.mark.parametrize("gigabytes", [0.0005, 8])
def test_features_are_cached_in_the_batches_of_the_first_epoch(runs, monkeypatch, gigabytes):
    """They may round differently in others, which a stem that sees its whole batch exaggerates."""
    stem = MVFA.stem

    def mixed(self, images: torch.Tensor) -> torch.Tensor:
        features = stem(self, images)
        return features + 0.1 * features.mean()

    monkeypatch.setattr(MVFA, "stem", mixed)
    arguments = (*ZERO, "--cache_gb", gigabytes)
    expected = undisturbed(runs, *arguments)
    for steps in (4, 15):
        with stopped(Trainer, "step", steps):
            runs(*arguments)
    runs(*arguments)
    assert results(runs, "train_zero") == expected


def test_the_earlier_checkpoint_and_results_stay_until_the_end(runs, capsys):
    """A test of them says what they are."""
    runs(*FEW)
    before = results(runs, "train_few")
    longer = (*FEW, "--epoch", 5)
    with stopped(Trainer, "step", 2 * STEPS + 1):
        runs(*longer)
    state = runs.checkpoints / "Brain-2shot.state"
    moved = runs.folder / "aside.state"
    state.rename(moved)
    assert results(runs, "train_few") == before
    moved.rename(state)
    capsys.readouterr()
    runs("test_few", "Brain")
    assert f"Brain-2shot.pth is of an earlier training; the last was stopped ({state})" in (
        capsys.readouterr().err
    )
    (runs.checkpoints / "Brain-2shot.pth").unlink()
    with pytest.raises(UserError, match="its training was stopped: give that command again"):
        runs("test_few", "Brain")
    runs(*longer)
    assert [path.name for path in runs.checkpoints.iterdir()] == ["Brain-2shot.pth"]


def test_a_checkpoint_says_whether_its_training_ended(runs, capsys):
    """Those of earlier versions do not, and may have been saved while a training went on."""
    runs(*FEW, "--epoch", 1)
    path = runs.checkpoints / "Brain-2shot.pth"
    content = torch.load(path, weights_only=True)
    assert content["about"].pop("ended") is True
    del content["about"]["sha256"]
    capsys.readouterr()
    runs("test_few", "Brain")
    assert "does not say that its training ended" not in capsys.readouterr().err
    torch.save(content, path)
    runs("test_few", "Brain")
    assert f"note: {path} does not say that its training ended" in capsys.readouterr().err


def test_each_rule_without_the_test_set_saves_before_the_last_test(runs):
    for rule in ("valid", "last"):
        with stopped(Selection, "add_test", 0):
            runs(*FEW, "--epoch", 1, "--select", rule, "--save_path", runs.folder / rule)
        assert (runs.folder / rule / "Brain-2shot.pth").is_file()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--seed", 7], "belongs to another command, with another seed"),
        (["--keep", 0.5], "belongs to another command, with another recipe"),
        (["--shot", 4], None),  # another checkpoint, so another state
        (["--resume", "no"], "is not used (--resume no)"),
        (["--cache_gb", 0], "going on"),
        (["--cache_images", "yes"], "going on"),
        (["--test_batch_size", 3], "going on"),
    ],
)
def test_only_the_same_command_goes_on(runs, capsys, more, reason):
    with stopped(Trainer, "step", STEPS):
        runs(*FEW)
    capsys.readouterr()
    with stopped(Trainer, "step", 0):
        runs(*FEW, *more)
    said = [line for line in capsys.readouterr().err.splitlines() if ".state" in line]
    assert len(said) == bool(reason)
    assert not reason or reason in said[0]


def test_other_images_are_another_training(runs, capsys, demo_root, tmp_path):
    """Of the same names: their sizes are compared."""
    data = tmp_path / "data"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    with stopped(Trainer, "step", STEPS):
        runs(*FEW, data=data)
    image = next((data / "Brain_AD" / "test" / "good" / "img").iterdir())
    shutil.copy(next((data / "Brain_AD" / "test" / "Ungood" / "img").iterdir()), image)
    capsys.readouterr()
    with stopped(Trainer, "step", 0):
        runs(*FEW, data=data)
    assert "another command, with another images" in capsys.readouterr().err


def test_a_state_of_another_command_is_kept_aside(runs, capsys):
    """A mistyped flag does not cost a night."""
    with stopped(Trainer, "step", STEPS):
        runs(*FEW)
    state = runs.checkpoints / "Brain-2shot.state"
    content = state.read_bytes()
    with stopped(Trainer, "step", 0):
        runs(*FEW, "--seed", 7)
    assert "the training starts anew, and this state stays as Brain-2shot.state.old" in (
        capsys.readouterr().err
    )
    (runs.checkpoints / "Brain-2shot.state.old").replace(state)
    assert state.read_bytes() == content
    runs(*FEW)
    assert "going on after 1 of 4 epochs" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "flipped", "other file", "format"])
def test_a_damaged_state_is_not_gone_on_with(runs, capsys, damage):
    with stopped(Trainer, "step", STEPS):
        runs(*FEW)
    path = runs.checkpoints / "Brain-2shot.state"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-1000] ^= 1
    if damage == "format":
        content = content.replace(b'\\"format\\": 1', b'\\"format\\": 9')
    new = {"cut": content[:-100], "other file": b"PK"}.get(damage, content)
    path.write_bytes(new)
    capsys.readouterr()
    with stopped(Trainer, "step", 0):
        runs(*FEW)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if ".state" in line]
    assert said.startswith(f"note: {path} cannot be continued: ")
    assert said.endswith(
        "; the training starts anew, and this state stays as Brain-2shot.state.old"
    )


def test_a_state_comes_back_to_the_bit(tmp_path):
    values = {"losses": [0.1 + 0.2, 1e-300], "text": "\udcff", "none": None}
    tensors = grouped("one", {"a": torch.tensor(float("nan")), "b": torch.tensor([2**-149])})
    tensors |= {"generator": torch.Generator().manual_seed(3).get_state()}
    write_state(tmp_path / "x.state", State(tensors, values))
    state = read_state(tmp_path / "x.state")
    assert state.values == values
    assert group("one", state.tensors).keys() == {"a", "b"}
    for name, tensor in tensors.items():
        assert state.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_without_a_checkpoint_there_is_no_state(runs):
    with stopped(Trainer, "step", 2 * STEPS):
        runs(*FEW, "--save_model", 0)
    assert not runs.checkpoints.exists()


def test_states_take_their_share_of_the_time_and_no_more(runs, monkeypatch):
    """A training whose states take long to write writes fewer of them."""
    clock = iter(range(0, 10**9, 10))  # ten seconds from one look to the next
    monkeypatch.setattr(resume.time, "monotonic", lambda: next(clock))
    written = []

    def write(path, state) -> None:  # noqa: ARG001
        written.append(state.values["epoch"])

    monkeypatch.setattr(resume, "write_state", write)
    monkeypatch.setattr(resume, "WRITING_SHARE", 0.5)
    runs("train_few", "Brain", "--epoch", 10, "--select", "last")
    assert written == [1, 3, 5, 7, 9]


def test_the_time_before_a_stop_counts(runs):
    with stopped(Trainer, "step", STEPS):
        runs(*FEW)
    path = runs.checkpoints / "Brain-2shot.state"
    state = read_state(path)
    write_state(path, State(state.tensors, {**state.values, "seconds": 5000.0}))
    runs(*FEW)
    assert 5000 < runs.metrics("train_few")["seconds"] < 6000

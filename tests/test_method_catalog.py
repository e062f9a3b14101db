"""Methods by name: which scripts run them, and what a checkpoint or a detector says of one."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from errors import UserError
from mvfa import Detector, calibrate_options, checkpoint, detector_file
from mvfa.detector_file import read_description
from mvfa.methods.catalog import MADCLIP, METHODS, MVFA, check_script
from mvfa.options import parse
from mvfa.script_flags import build_parser
from tests.detectors import random_detector, write_described
from tests.image_sets import drawn_method
from tests.methods import KEYS, load_mvfa

SCRIPTS = ("train_few", "train_zero", "test_few", "test_zero")
CALIBRATIONS = ("calibrate_few", "calibrate_zero")
# a method can be calibrated where it can be tested
REFUSED = {
    *(("madclip", script) for script in ("train_zero", "test_zero", "calibrate_zero")),
    *(
        ("patch_memory", script)
        for script in ("train_few", "train_zero", "test_zero", "calibrate_zero")
    ),
    *itertools.product(("clip", "winclip"), ("train_few", "train_zero")),
}
COMBINATIONS = list(itertools.product(METHODS, SCRIPTS + CALIBRATIONS))


@pytest.mark.parametrize(("method", "script"), COMBINATIONS)
def test_a_script_runs_what_exists(method, script):
    """What does not exist is one line, which names the methods that the script runs."""
    if (method, script) not in REFUSED:
        check_script(method, script)
        return
    with pytest.raises(UserError) as refused:
        check_script(method, script)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"--method {method}: ")
    shown, _, named = line.rsplit("; ", maxsplit=1)[-1].partition(".py runs ")
    assert shown == ("calibrate" if script in CALIBRATIONS else script)
    assert named.split(", ") == [name for name in METHODS if (name, script) not in REFUSED]


@pytest.mark.parametrize(("method", "script"), sorted(set(COMBINATIONS)))
def test_flags_are_refused_as_well(method, script):
    """By each script's parser, before anything is loaded."""
    argv = ["--obj", "Brain", "--method", method]

    def read() -> object:
        if script not in CALIBRATIONS:
            return parse(script, argv)
        return calibrate_options.parse([*argv, "--shot", "4" if script.endswith("few") else "0"])

    if (method, script) in REFUSED:
        with pytest.raises(UserError, match=rf"^--method {method}: .*\.py runs mvfa"):
            read()
    else:
        assert read().method == method


def test_flags_of_single_methods_are_refused_for_others():
    for flags, message in (
        (["--rotate", "yes"], "--rotate is for --method patch_memory, not mvfa"),
        (["--contrast_mood", "no"], "--contrast_mood is for --method madclip, not mvfa"),
        (["--method", "madclip", "--abnormal_shot", "0"], "MadCLIP has none; leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            parse("test_few", ["--obj", "Brain", *flags])


def test_a_method_has_its_own_defaults():
    """Flags come first, and MVFA's are what they were."""
    plain = parse("train_few", ["--obj", "Brain"])
    other = parse("train_few", ["--obj", "Brain", "--method", MADCLIP])
    given = parse("train_few", ["--obj", "Brain", "--method", MADCLIP, "--epoch", "3"])
    assert (plain.epoch, plain.batch_size, plain.learning_rate) == (50, 1, 1e-3)
    assert (other.epoch, other.batch_size, other.learning_rate) == (60, 16, 1e-3)
    assert given.epoch == 3
    assert plain.save_path != other.save_path
    assert plain.out != other.out


def test_the_help_names_every_method():
    (flag,) = (a for a in build_parser("test_few")._actions if a.dest == "method")
    assert all(name in flag.help for name in METHODS)
    assert flag.default == MVFA


def test_a_checkpoint_of_one_method_is_refused_by_another(tiny, tmp_path):
    """One line, whatever the file says of itself."""
    own = drawn_method(tiny).state()
    other = {key: {"weight": torch.ones(2)} for key in METHODS[MADCLIP].keys}
    checkpoint.save(tmp_path / "mvfa.pth", own, {"method": MVFA})
    checkpoint.save(tmp_path / "madclip.pth", other, {"method": MADCLIP})
    with pytest.raises(UserError, match=r"madclip\.pth is no MVFA checkpoint: it needs") as said:
        load_mvfa(tmp_path / "madclip.pth")
    assert "\n" not in str(said.value)
    keys = METHODS[MADCLIP].keys
    with pytest.raises(UserError, match=r"mvfa\.pth is no MadCLIP checkpoint: it needs") as said:
        checkpoint.load(tmp_path / "mvfa.pth", keys)
    assert "\n" not in str(said.value)
    assert checkpoint.load(tmp_path / "madclip.pth", keys).about["method"] == MADCLIP


def test_a_training_does_not_replace_a_checkpoint_of_another_method(tiny, tmp_path):
    checkpoint.save(tmp_path / "x.pth", drawn_method(tiny).state(), {"method": MVFA})
    checkpoint.check_replaceable(tmp_path / "x.pth", KEYS)
    with pytest.raises(UserError, match="was not written by this program and would be lost"):
        checkpoint.check_replaceable(tmp_path / "x.pth", METHODS[MADCLIP].keys)


def test_a_detector_that_names_no_method_is_of_mvfa(tiny_path, tmp_path):
    """Files of earlier versions have neither of the two entries."""
    path = tmp_path / "x.detector"
    made = random_detector(tiny_path)
    made.save(path)
    about = read_description(path)
    assert about["method"] == MVFA
    for name in ("method", "method_settings"):
        del about[name]
    text = json.dumps(about)
    metadata = {detector_file.KEY: text, detector_file.DIGEST: detector_file.text_hash(text)}
    save_file(load_file(path), path, metadata=metadata)
    loaded = Detector.load(path, clip_path=tiny_path)
    assert loaded.settings == made.settings
    assert type(loaded.method) is type(made.method)


@pytest.mark.parametrize("branch", ["text", "memory"])
@pytest.mark.parametrize("entry", ["map_ranges", "calibration"])
def test_ranges_are_of_the_branches_that_are_scored(tiny_path, tmp_path, branch, entry):
    """Else the first image would end in a traceback."""
    path = tmp_path / "x.detector"
    random_detector(tiny_path).save(path)
    changed = read_description(path)[entry]
    ranges = changed["lo_hi"] if entry == "calibration" else changed
    ranges[branch] = None
    write_described(path, path, **{entry: changed})
    with pytest.raises(UserError, match=f"its {branch} branch and its calibration do not fit"):
        Detector.load(path, clip_path=tiny_path)


def test_a_detector_of_an_unknown_method_is_refused(tiny_path, tmp_path):
    path = tmp_path / "x.detector"
    random_detector(tiny_path).save(path)
    text = json.dumps(read_description(path) | {"method": "nonsense"})
    metadata = {detector_file.KEY: text, detector_file.DIGEST: detector_file.text_hash(text)}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(UserError, match="is not a detector") as said:
        Detector.load(path, clip_path=tiny_path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("method", "flags", "named"),
    [
        ("clip", ["--keep", "0.5"], "keep"),
        ("clip", ["--projector", "all"], "projector"),
        ("madclip", ["--image_score", "max"], "image_score"),
        ("winclip", ["--features_list", "3", "6"], "features_list"),
        ("patch_memory", ["--score_levels", "6"], "score_levels"),
        ("patch_memory", ["--activation", "gelu"], "activation"),
        ("madclip", ["--compile", "yes"], "compile"),
    ],
)
def test_flags_that_change_nothing_of_a_method_are_refused(method, flags, named):
    with pytest.raises(UserError, match=f"^--{named} changes nothing of --method {method}"):
        parse("test_few", ["--obj", "Brain", "--method", method, *flags])


def test_flags_that_a_method_uses_are_taken():
    flags = ["--activation", "quickgelu", "--scaling", "clip", "--score_levels", "6"]
    options = parse("test_few", ["--obj", "Brain", "--method", "clip", *flags])
    assert options.recipe.activation == "quickgelu"
    parse("test_few", ["--obj", "Brain", "--method", "patch_memory", "--recipe", "paper"])

"""Every flag says its default, examples work, and a recipe is complete whatever the flags."""

import pwd
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from errors import UserError
from mvfa.defaults import EXAMPLES, UNUSED
from mvfa.options import parse
from mvfa.recipe import FIELDS, OWN_FLAGS, RECIPES
from mvfa.script_flags import build_parser
from mvfa.shared_flags import default_cache

SCRIPTS = ("train_few", "test_few", "train_zero", "test_zero")


def help_texts(script: str) -> dict[str, str]:
    """Return the help of each flag, as it is printed."""
    parser = build_parser(script)
    return {
        action.dest: (action.help or "") % {"default": action.default}
        for action in parser._actions
        if action.dest != "help"
    }


def in_words(value: object) -> str:
    """Return a value as a user types it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_says_its_default(script):
    texts = help_texts(script)
    assert texts.pop("obj").endswith("(no default)")
    if script.startswith("test"):
        for name in UNUSED:
            assert texts.pop(name) == "no effect on a test"
    for name, text in texts.items():
        assert re.search(r"\S \(default: [^)]+\)$", text), f"--{name}: {text}"
        assert "None" not in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_defaults_in_the_help_are_those_in_force(script):
    """Where the help shows a plain value."""
    values = vars(build_parser(script).parse_args(["--obj", "Brain"]))
    texts = help_texts(script)
    checked = 0
    for name, value in values.items():
        if name in ("obj", *UNUSED) or value is None:
            continue
        shown = texts[name].split("(default: ")[1].rstrip(")")
        assert shown == in_words(value), name
        checked += 1
    assert checked >= 10


@pytest.mark.parametrize("script", SCRIPTS)
def test_recipe_flags_show_both_values(script):
    texts = help_texts(script)
    for name in FIELDS:
        if name in OWN_FLAGS:
            continue
        released = in_words(getattr(RECIPES["released"], name))
        paper = in_words(getattr(RECIPES["paper"], name))
        april = ", april_gan all" if name == "projector" else ""
        assert texts[name].endswith(f"(default: released {released}, paper {paper}{april})")


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_parse_and_are_in_the_help(script):
    text = build_parser(script).format_help()
    for example in EXAMPLES[script]:
        assert f"  python {script}.py {example}\n" in text
        assert parse(script, example.split()).script == script


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_recipe_is_complete(script, name):
    options = parse(script, ["--obj", "Brain", "--recipe", name])
    assert options.recipe == RECIPES[name]
    assert options.batch_size == RECIPES[name].batch_size
    assert options.learning_rate == getattr(RECIPES[name], f"rate_{options.setting}")


CHANGES = {
    "image_score": "max",
    "keep": "0.5",
    "mix": "0.25",
    "slope": "0.2",
    "projector": "all",
    "bce_pool": "max",
    "bce_input": "probability",
    "bank_class_token": "no",
    "level_reduction": "mean",
    "activation": "quickgelu",
    "scaling": "clip",
    "select": "valid",
}


def test_every_choice_of_the_recipe_is_a_flag():
    """`CHANGES` names all of them."""
    assert [name for name in FIELDS if name not in OWN_FLAGS] == list(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_a_flag_overrides_one_choice(name):
    options = parse("train_few", ["--obj", "Brain", f"--{name}", CHANGES[name]])
    changed = [
        field.name
        for field in fields(options.recipe)
        if getattr(options.recipe, field.name) != getattr(RECIPES["released"], field.name)
    ]
    assert changed == [name]


def test_the_rate_and_the_batch_become_part_of_the_recipe():
    flags = ["--obj", "Brain", "--learning_rate", "0.5", "--batch_size", "7"]
    few = parse("train_few", flags).recipe
    zero = parse("train_zero", flags).recipe
    assert (few.rate_few, few.rate_zero, few.batch_size) == (0.5, 1e-4, 7)
    assert (zero.rate_few, zero.rate_zero, zero.batch_size) == (1e-3, 0.5, 7)


@pytest.mark.parametrize(
    ("script", "flags", "checkpoint", "out"),
    [
        ("train_few", "--shot 2", "ckpt/few-shot/Brain-2shot.pth", "results/train_few/Brain-2shot"),
        ("train_zero", "", "ckpt/zero-shot/Brain.pth", "results/train_zero/Brain"),
        (
            "test_few",
            "--abnormal_shot 0",
            "ckpt/zero-shot/Brain.pth",
            "results/test_few/Brain-4normal",
        ),
        ("test_zero", "--save_path d --out o", "d/Brain.pth", "o"),
    ],
)
def test_files_have_their_places(script, flags, checkpoint, out):
    options = parse(script, ["--obj", "Brain", *flags.split()])
    assert options.checkpoint == Path(checkpoint)
    assert options.out == Path(out)


def test_an_object_may_be_any_folder():
    """Whether the folder exists is found out later, when it is read."""
    options = parse("train_few", ["--obj", "Thyroid gland", "--noun", " thyroid ultrasound "])
    assert (options.obj, options.noun) == ("Thyroid gland", "thyroid ultrasound")
    assert options.out == Path("results/train_few/Thyroid gland-4shot")
    plain = parse("train_few", ["--obj", "HAM10000"])
    assert plain.obj == "Skin_HAM10000"
    assert (plain.noun, plain.mask_rule, plain.intensity) == (None, None, None)
    assert plain.as_dict()["intensity"] is None
    for noun in ("", " ", "two\nlines"):
        with pytest.raises(UserError, match=r"--noun: .* is no noun"):
            parse("train_few", ["--obj", "Brain", "--noun", noun])


def test_objects_to_train_on():
    flags = ["--obj", "Brain", "--train_objects"]
    options = parse("train_zero", [*flags, "Liver", "HAM10000", "Liver"])
    assert options.train_objects == ("Liver", "Skin_HAM10000")
    assert options.as_dict()["train_objects"] == ["Liver", "Skin_HAM10000"]
    assert parse("train_zero", ["--obj", "Brain"]).train_objects is None
    with pytest.raises(UserError, match="--train_objects Brain: zero-shot adapters never see"):
        parse("train_zero", [*flags, "Liver", "Brain"])
    with pytest.raises(UserError, match="unrecognized arguments: --train_objects"):
        parse("train_few", [*flags, "Liver"])


def test_flags_are_not_abbreviated():
    with pytest.raises(UserError, match="unrecognized arguments: --learning"):
        parse("train_few", ["--obj", "Brain", "--learning", "0.1"])


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "mvfa"


def test_without_platformdirs_the_cache_is_below_the_current_folder(monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert default_cache() == Path(".cache", "mvfa")


def test_text_features_are_cached_unless_nothing_is(tmp_path):
    flags = f"--obj Brain --cache_dir {tmp_path}".split()
    assert parse("test_few", flags).text_cache == tmp_path / "text"
    assert parse("test_few", [*flags, "--cache_gb", "0"]).text_cache is None


def test_a_user_without_a_home_has_a_cache_and_help(monkeypatch, capsys):
    """In a container, a user whose number nobody knows."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    with pytest.raises(SystemExit) as ended:
        parse("train_few", ["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "folder of cached text features and decoded images (default: .cache/mvfa)" in shown
    assert parse("train_few", ["--obj", "Brain"]).cache_dir == Path(".cache/mvfa")

"""reproduce.py: its plan, and real runs on demo images: stopped, in jobs, with a broken cell."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import prepare_data
import reproduce
from CLIP.adapter import MVFA
from CLIP.weights import create_model
from errors import UserError
from mvfa.recipe import LEVELS, RECIPES
from report.arguments import build_parser, parse
from report.cells import cell_specs
from report.experiments import SWITCHES, TABLES, switch_flags, table_specs
from report.jobs import jobs_of, missing_input
from report.study import DONE, FAILED, MISSING, Study, load_published
from tests.conftest import released_form
from tests.methods import mvfa_method

ROOT = Path(__file__).parent.parent
ASKED = ("table1", "branches", "table2", "normal", "figure5", "--objects", "Brain")
SMALL = ("--img_size", "60", "--epoch", "1", "--pictures", "1")


def small(
    root: Path, demo_root: Path, weights: Path, *more: str, data: Path | None = None
) -> list[str]:
    """Return the flags of a small study whose results go to a folder."""
    folders = ["--root", root, "--data_path", data or demo_root / "data"]
    folders += ["--fewshot_path", demo_root / "fewshot_seed"]
    folders += ["--clip_path", weights, "--cache_dir", root.parent / "cache"]
    return [str(flag) for flag in (*ASKED, *SMALL, *folders, *more)]


@pytest.fixture
def flags(demo_weights, demo_root, tmp_path):
    """Make flags of a small study below a folder."""

    def make(name: str, *more: str, data: Path | None = None) -> list[str]:
        return small(tmp_path / name, demo_root, demo_weights, *more, data=data)

    return make


def report(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / "report").rglob("*.*"))
    }


def work(*argv: str) -> dict[str, set[str]]:
    """Return the folders of trainings and of their tests."""
    request = parse(argv)
    folders: dict[str, set[str]] = {}
    for spec in cell_specs(request.options):
        train, test = jobs_of(spec, request.options, request.runs)
        folders.setdefault(train.out.parent.name, set()).add(test.out.name)
    return folders


def test_every_table_has_its_rows_and_its_runs():
    options = parse(["--demo", "all"]).options
    tables = {spec.name: spec for spec in table_specs(options)}
    assert tuple(tables) == TABLES
    cells = cell_specs(options)
    for name, table in tables.items():
        assert {cell.row for cell in cells if cell.table == name} == set(table.rows)
        assert {cell.obj for cell in cells if cell.table == name} == set(table.objects)
    published = load_published()
    for table in tables.values():
        for source in (s for p in table.published for s in (p.paper, p.implementation) if s):
            key = (source.table, source.shot, source.method)
            assert any(key == row[:3] for row in published), source


def test_trainings_are_shared():
    shared = work("table1", "branches", "figure5", "figure3", "--objects", "Brain")
    assert len([name for name in shared if name.startswith("few")]) == 4  # K = 2, 4, 8, 16
    assert sorted(map(len, work("table5", "--objects", "Brain").values())) == [1, 1, 1, 1, 5]
    spread = ("--seeds", "1", "2", "--draws", "0", "1", "2")
    assert len(work("table1", "table2", "--objects", "Brain", *spread)) == 8


def test_one_number_is_a_count_of_seeds_and_draws():
    options = parse(["table1", "--seeds", "3", "--draws", "2"]).options
    assert (options.seeds, options.draws) == ((111, 112, 113), (0, 1))
    options = parse(["table1", "--seeds", "7", "7", "--draws", "4", "2"]).options
    assert (options.seeds, options.draws) == ((7,), (4, 2))
    options = parse(["table1"]).options
    assert (options.seeds, options.draws) == ((111,), (0,))
    for flag, value in (("--seeds", "111"), ("--seeds", "0"), ("--draws", "0")):
        with pytest.raises(UserError, match=f"{flag} {value} {value}"):
            parse(["table1", flag, value])


def test_disjoint_cases_are_asked_of_few_shot_tests():
    plain = cell_specs(parse(["table1", "table2", "--objects", "Brain"]).options)
    flags = ["table1", "table2", "--objects", "Brain", "--disjoint_cases", "yes"]
    few, zero = cell_specs(parse(flags).options)
    assert few.flags == ("--disjoint_cases", "yes")
    assert zero == plain[1]
    assert few.training == plain[0].training


def test_names_change_with_settings():
    one = work("table1", "--objects", "Brain")
    for more in (
        ("--epoch", "3"),
        ("--seeds", "1", "1"),
        ("--recipe", "paper"),
        ("--select", "last"),
        ("--img_size", "336"),
    ):
        assert not one.keys() & work("table1", "--objects", "Brain", *more).keys(), more
    neutral = ("--device", "cpu", "--jobs", "3", "--seeds", "111", "111", "--cache_images", "no")
    assert one == work("table1", "--objects", "Brain", *neutral)


def test_other_shots_are_other_runs(tmp_path):
    """Whatever list they come from, and if only the list's content has changed."""
    runs = []
    for names in ("a.png b.png c.png d.png", "a.png b.png c.png e.png", None):
        (tmp_path / "Brain").mkdir(exist_ok=True)
        (tmp_path / "Brain" / "4-shot.txt").write_text(
            f"n-0: {names}\na-0: x.png\n" if names else ""
        )
        lists = ("--fewshot_path", str(tmp_path))
        runs.append(work("table1", "normal", "--objects", "Brain", *lists))
    trainings = [{name for name in folders if name.startswith("few")} for folders in runs]
    assert not trainings[0] & trainings[1]
    tests = [
        next(tests for name, tests in folders.items() if name.startswith("zero"))
        for folders in runs
    ]
    assert tests[0] != tests[1] != tests[2]


def organ(tmp_path: Path, demo_root: Path, *more: str) -> list[str]:
    """Return flags of a study of Brain and of the same images as a new object."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    for path in (demo_root / "data").glob("*_AD"):
        if not (data / path.name).exists():
            shutil.copytree(path, data / path.name)
    if not (data / "Thyroid_AD").exists():
        shutil.copytree(data / "Brain_AD", data / "Thyroid_AD")
    return [*more, "--objects", "Thyroid", "Brain", "--data_path", str(data)]


def test_a_new_object_is_the_last_column(tmp_path, demo_root, demo_weights):
    """Its shots are drawn by the seed, and its zero-shot adapters learn from all six."""
    flags = organ(tmp_path, demo_root, "table1", "table2", "skin", "figure3")
    options = parse([*flags, "--clip_path", str(demo_weights)]).options
    tables = {table.name: table.objects for table in table_specs(options)}
    assert tables["table1"] == tables["table2"] == ("Brain", "Thyroid")
    assert tables["skin"] == ("Skin",)
    missing = {(s.table, s.obj): missing_input(s, options) for s in cell_specs(options)}
    assert missing["table1", "Thyroid"] == missing["table2", "Thyroid"] == ""
    assert missing["table1", "Brain"].startswith("no list of 4 shots with draw 0; python prepare")
    several = parse([*flags, "--clip_path", str(demo_weights), "--draws", "1", "1"]).options
    (spec,) = [s for s in cell_specs(several) if (s.table, s.obj) == ("table1", "Thyroid")]
    assert missing_input(spec, several).startswith("no list of 4 shots with draw 1; python prepare")
    shutil.rmtree(tmp_path / "data" / "Chest_AD")
    (spec,) = [s for s in cell_specs(options) if (s.table, s.obj) == ("table2", "Thyroid")]
    assert missing_input(spec, options) == "no images of Chest"


def test_the_command_that_is_named_writes_the_missing_draws(tmp_path, demo_root, demo_weights):
    """All draws and numbers of shots at once; that it replaces a list is said."""
    flags = organ(tmp_path, demo_root, "table1", "figure3", "--shots", "2", "--draws", "3")
    lists = ["--fewshot_path", str(tmp_path / "my lists")]
    options = parse([*flags, *lists, "--clip_path", str(demo_weights)]).options
    shutil.copytree(demo_root / "fewshot_seed/Brain", tmp_path / "my lists/Brain")

    def missing() -> dict[tuple[str, str, int], str]:
        specs = cell_specs(options)
        return {(s.obj, s.table, s.draw): missing_input(s, options) for s in specs}

    before = missing()
    assert before["Brain", "table1", 0] == before["Thyroid", "table1", 0] == ""
    text = before["Brain", "table1", 2]
    assert text.startswith(
        "no list of 4 shots with draw 2; python prepare_data.py draw --obj Brain"
    )
    assert text.endswith("--overwrite writes it, in place of lists that are there")
    assert before["Thyroid", "figure3", 1].endswith(" writes it")
    for obj in ("Brain", "Thyroid"):
        command = before[obj, "table1", 1].split("prepare_data.py ")[1].split(" writes it")[0]
        prepare_data.main(shlex.split(command))
    assert set(missing().values()) == {""}


def test_an_object_without_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*Tyroid_AD; .*catalog \(Brain, "):
        reproduce.main(["table1", "--objects", "Tyroid", "--data_path", str(tmp_path), "--plan"])
    with pytest.raises(UserError, match="is no object"):
        parse(["table1", "--objects", "a/b"])


def test_settings_of_an_object_make_other_runs(tmp_path, demo_root):
    """Those of Brain change its own trainings and the zero-shot ones that read its images."""
    flags = organ(tmp_path, demo_root, "table1", "table2")
    before = work(*flags)
    (tmp_path / "data" / "Brain_AD" / "object.toml").write_text('noun = "head"')
    after = work(*flags)
    kept = {name for name in before if name in after}
    assert len(before) == len(after) == 4
    assert [name.split("-shot")[0] for name in kept] == ["few-Thyroid-seed111"]


def test_switches_name_every_difference_that_is_a_choice_of_scores():
    flags = ["--bank_class_token", "no", "--keep", "0.9"]
    assert switch_flags(["bank_class_token", "keep"]) == flags
    released, paper = (RECIPES[name].as_dict() for name in ("released", "paper"))
    different = {name for name in released if released[name] != paper[name]}
    switched = {name for names in SWITCHES.values() for name in names}
    assert switched == different - {"batch_size", "rate_few", "rate_zero", "select"}
    cells = cell_specs(parse(["switches", "--recipe", "paper", "--objects", "Brain"]).options)
    assert len({cell.training for cell in cells}) == len(cells) == len(SWITCHES) + 2
    assert all(cell.training.flags[-2:] != ("--recipe", "paper") for cell in cells)


def test_a_plan_says_what_is_missing(flags, tmp_path, capsys):
    draws = ("--draws", "0", "7")
    study = reproduce.main(flags("plan", "--plan", *draws, data=tmp_path / "nowhere"))
    assert study.cells == ()
    printed = capsys.readouterr().out
    assert "table1    Brain           seed 111 draw 0 MVFA, 4-shot: no images of Brain" in printed
    assert not (tmp_path / "plan").exists()
    reproduce.main(flags("plan", "--plan", *draws))
    printed = capsys.readouterr().out
    assert "draw 0 MVFA, 4-shot: to run" in printed
    assert "draw 7 MVFA, 4-shot: no list of 4 shots with draw 7" in printed
    # once, whatever the draws: table2 and figure5
    assert printed.count("MVFA, zero-shot: to run") == 2
    options = parse(["table1", "--clip_path", "nowhere.pt"]).options
    assert {missing_input(spec, options) for spec in cell_specs(options)} == {"no CLIP weights"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["table9"], "invalid choice: 'table9'"),
        ([], "required"),
        (["all", "--jobs", "0"], "at least 1"),
        (["all", "--cluster_options", "timeout"], "KEY=VALUE"),
        (
            ["table1", "--published", "--epoch", "3"],
            "--published trains nothing, so --epoch has no effect; leave it out",
        ),
        (["table1", "--published", "--demo"], "leave out --demo"),
    ],
)
def test_mistakes_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        parse(argv)


SLOW = ("torch", "pandas", "plotly", "train_few", "demo")


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["--help"], 0), (["table9"], 2), (["all", "--cluster_options", "timeout"], 2)],
)
def test_help_and_mistakes_come_without_slow_imports(argv, status):
    """A process of its own, since other tests import these packages."""
    code = (
        "import sys, atexit\n"
        f"slow = lambda: [name for name in {SLOW} if name in sys.modules]\n"
        "atexit.register(lambda: print(slow(), file=sys.stderr))\n"
        "import reproduce\n"
        "reproduce.command(reproduce.run)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, ended.stderr
    assert ended.stderr.endswith("[]\n")


def test_help_shows_every_default_and_two_examples():
    parser = build_parser()
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "plan", "demo"):
            assert "(default: " in str(action.help), action.dest
    examples = re.findall(r"^  python reproduce\.py (.*)$", parser.format_help(), re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        assert parse([*example.split(), "--device", "cpu"]).options.tables


def test_the_page_shows_the_flags_that_change_results():
    command = parse(["table1", "--seeds", "1", "2", "--recipe", "paper", "--device", "cpu"]).command
    assert command == "python reproduce.py table1 --seeds 1 2 --recipe paper"


@pytest.fixture(scope="module")
def whole(demo_weights, demo_root, tmp_path_factory) -> tuple[Study, Path]:
    """Make a small study; return it with its folder."""
    root = tmp_path_factory.mktemp("whole")
    study = reproduce.main(small(root / "one", demo_root, demo_weights))
    return study, root / "one"


def test_two_undisturbed_runs_and_one_in_jobs_are_equal(whole, flags, tmp_path):
    study, one_root = whole
    assert {cell.state for cell in study.cells} == {DONE}
    assert [
        c.metrics["image_auroc"] for c in study.cells if c.row == "without the text branch"
    ] == [
        c.metrics["details"]["image"]["memory"]["auroc"] for c in study.cells if c.table == "table1"
    ]
    reproduce.main(flags("two", "--jobs", "2", "--cluster_options", "timeout_min=30"))
    assert report(one_root) == report(tmp_path / "two")
    one, two = (sorted((root / "runs").rglob("*.pth")) for root in (one_root, tmp_path / "two"))
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        first, second = (torch.load(path, weights_only=True) for path in (a, b))
        for head in ("seg_adapters", "det_adapters"):
            assert all(torch.equal(first[head][key], second[head][key]) for key in first[head])
    for a in sorted((one_root / "runs").rglob("scores.csv")):
        assert a.read_bytes() == (tmp_path / "two" / a.relative_to(one_root)).read_bytes()


def test_a_killed_run_ends_with_the_same_page(whole, flags, tmp_path):
    command = [sys.executable, "reproduce.py", *flags("killed")]
    for moment in (1, 3):  # when so many runs have left their results, and a little later
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while (
            len(list((tmp_path / "killed").rglob("metrics.json"))) < moment
            and process.poll() is None
        ):
            time.sleep(0.05)
        time.sleep(0.4)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "report").exists()
    reproduce.main(flags("killed"))
    assert report(tmp_path / "killed") == report(whole[1])


def test_published_adapters_are_tested_without_a_training(flags, tmp_path, demo_root, demo_weights):
    """K = 4 and zero-shot only; the images of the other objects are not needed."""
    clip = create_model(None, demo_weights, image_size=60)
    for setting in ("few", "zero"):
        model = MVFA(clip.visual, clip.config.embed_dim, LEVELS, released_form())
        adapters = mvfa_method(model).state()
        (tmp_path / "theirs" / f"{setting}-shot").mkdir(parents=True)
        torch.save(adapters, tmp_path / "theirs" / f"{setting}-shot" / "Brain.pth")
    data = tmp_path / "alone"
    shutil.copytree(demo_root / "data" / "Brain_AD", data / "Brain_AD")
    argv = flags("theirs", "--published", tmp_path / "theirs", data=data)
    argv = [*argv[: argv.index("--epoch")], *argv[argv.index("--epoch") + 2 :]]
    study = reproduce.main(["figure3", *argv, "--shots", "2", "4"])
    states = {(cell.table, cell.row): cell.state for cell in study.cells}
    assert states.pop(("figure3", "K = 2")) == MISSING
    assert set(states.values()) == {DONE}
    assert not list((tmp_path / "theirs" / "runs").rglob("*.pth"))
    tested = {cell.metrics["adapters"]["file"] for cell in study.cells if cell.state == DONE}
    assert tested == {
        str(tmp_path / "theirs" / f"{setting}-shot" / "Brain.pth") for setting in ("few", "zero")
    }
    again = reproduce.main(["figure3", *argv, "--shots", "2", "4"])
    assert [cell.metrics for cell in again.cells] == [
        cell.metrics for cell in study.cells
    ]  # finished runs are kept


def test_a_failed_cell_is_listed_and_the_others_go_on(flags, tmp_path, demo_root, capsys):
    data = tmp_path / "data"
    shutil.copytree(demo_root / "data", data)
    (data / "Chest_AD" / "test" / "good" / "img" / "000.png").write_text("no image")
    shutil.rmtree(data / "Liver_AD" / "test")
    study = reproduce.main(flags("broken", "--objects", "Brain", "Chest", data=data))
    states = {(c.table, c.obj): (c.state, c.reason) for c in study.cells}
    assert states["table1", "Brain"] == (DONE, "")
    assert states["table1", "Chest"][0] == FAILED
    assert "000.png is not a readable image" in states["table1", "Chest"][1]
    assert states["table2", "Brain"] == (MISSING, "no images of Liver")
    assert "failed: table1, MVFA, 4-shot, Chest" in capsys.readouterr().err
    assert "is not a readable image" in (tmp_path / "broken" / "report" / "index.html").read_text()

"""The table of methods: its rows and runs, what they cost, and each against the first."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reproduce
from mvfa.memory import HOST_PEAK, peak_memory
from mvfa.methods.catalog import METHODS
from mvfa.protocol import recipe_sentence
from mvfa.recipe import RECIPES
from mvfa.run_files import read_scores
from mvfa.run_schema import FORM
from mvfa.schema import problem
from mvfa.script_flags import build_parser
from report.arguments import parse
from report.cells import CellSpec, cell_specs
from report.comparisons import LEVEL, reference_table, verdict
from report.costs import averages, cost_table
from report.experiments import METHOD_ROWS, table_specs
from report.job import Job
from report.jobs import jobs_of, missing_input
from report.page import write_report
from report.settings import protocols, study_settings
from report.study import AVERAGE, DONE, Cell, Study, TableSpec
from synthetic.dino import write_demo_dino

MIB = 2**20
OBJECTS = ("--objects", "Brain")
ROWS = {  # and scripts, with what their flags end with
    "MVFA, 4-shot": ("train_few", "test_few", ""),
    "April-GAN form, 4-shot": ("train_few", "test_few", "--recipe april_gan"),
    "MadCLIP, 4-shot": ("train_few", "test_few", "--method madclip"),
    "Patch memory (DINOv2), 4 normal shots": ("", "test_few", "--method patch_memory"),
    "CLIP, text and memory": ("", "test_few", "--method clip"),
    "CLIP, text": ("", "test_few", "--method clip"),
    "CLIP, memory": ("", "test_few", "--method clip"),
    "WinCLIP, 4 normal shots": ("", "test_few", "--method winclip"),
    "MVFA, zero-shot": ("train_zero", "test_zero", ""),
    "CLIP, zero-shot": ("", "test_zero", "--method clip"),
    "WinCLIP, zero-shot": ("", "test_zero", "--method winclip"),
}


def runs(*argv: str) -> dict[tuple[str, str], tuple[CellSpec, Job, Job]]:
    """Return the cells by table and row, each with its training and its test."""
    request = parse([*argv, *OBJECTS])
    return {
        (spec.table, spec.row): (spec, *jobs_of(spec, request.options, request.runs))
        for spec in cell_specs(request.options)
    }


def values(job: Job) -> dict[str, str]:
    """Return the flags of a job that stand apart from their values."""
    names = [i for i, flag in enumerate(job.flags) if flag.startswith("--") and "=" not in flag]
    return {job.flags[i]: job.flags[i + 1] for i in names}


def test_every_method_has_its_rows_and_its_scripts():
    found = runs("rivals")
    assert [row for _, row in found] == list(ROWS) == [row.row for row in METHOD_ROWS]
    (spec,) = table_specs(parse(["rivals"]).options)
    assert spec.rows == tuple(ROWS)
    sources = {row: spec.of_row(row).paper for row in spec.rows}
    published = {row: source.method for row, source in sources.items() if source is not None}
    # the paper does not say how it ran the others
    assert published == {"MVFA, 4-shot": "MVFA", "MVFA, zero-shot": "MVFA"}
    for (_, row), (_, train, test) in found.items():
        train_script, test_script, more = ROWS[row]
        assert (train.script, test.script) == (train_script, test_script), row
        assert more in " ".join(test.flags)
        assert more in " ".join(train.flags) or not train.script
        normal_only = test_script == "test_few" and not train_script
        assert values(test).get("--abnormal_shot") == ("0" if normal_only else None), row
        if not train_script:
            assert train.done
    assert {METHODS[values(t).get("--method", "mvfa")].title for _, _, t in found.values()} == {
        info.title for info in METHODS.values()
    }


def test_a_method_that_is_not_in_the_catalog_has_no_row(monkeypatch):
    """The rows of the others stay as they are."""
    import importlib

    import report.experiments as experiments

    with monkeypatch.context() as patch:
        patch.delitem(METHODS, "winclip")
        rows = [row.row for row in importlib.reload(experiments).METHOD_ROWS]
    importlib.reload(experiments)
    assert rows == [row for row in ROWS if not row.startswith("WinCLIP")]


def test_runs_are_shared_with_the_tables_of_the_paper_and_between_branches():
    found = runs("table1", "table2", "rivals")
    for table, row in (("table1", "MVFA, 4-shot"), ("table2", "MVFA, zero-shot")):
        assert found[table, row][1:] == found["rivals", row][1:]
    clip = [found["rivals", f"CLIP, {part}"] for part in ("text and memory", "text", "memory")]
    assert [spec.branch for spec, _, _ in clip] == ["both", "text", "memory"]
    assert len({jobs for _, *jobs in map(tuple, clip) for jobs in [tuple(jobs)]}) == 1
    tests = {test for (table, _), (_, _, test) in found.items() if table == "rivals"}
    assert len(tests) == len(ROWS) - 2


def test_runs_of_different_methods_lie_in_different_folders():
    found = runs("rivals")
    folders = {row: train.out.parent for (_, row), (_, train, _) in found.items()}
    assert len(set(folders.values())) == len(ROWS) - 2  # CLIP's branches share one
    digests = [folder.name.rsplit("-", 1)[1] for folder in set(folders.values())]
    assert len(set(digests)) == len(digests)


def test_flags_of_trainings_change_no_run_of_a_method_without_one():
    short = runs("rivals", "--epoch", "3")
    for key, (_, train, test) in runs("rivals").items():
        same = short[key][2].out == test.out
        assert same == (not train.script), key


def test_the_april_gan_form_keeps_the_recipe_of_the_study():
    _, _, test = runs("rivals", "--recipe", "paper")["rivals", "April-GAN form, 4-shot"]
    assert values(test)["--recipe"] == "paper"
    assert values(test)["--projector"] == "all"


def test_dino_weights_are_those_of_patch_memory_alone(tmp_path):
    path = write_demo_dino(tmp_path)
    plain = runs("rivals")
    given = runs("rivals", "--dino_path", str(path))
    for key, (_, _, test) in given.items():
        reads_dino = "patch_memory" in test.flags
        assert (values(test).get("--clip_path") == str(path)) == reads_dino
        assert (test.out != plain[key][2].out) == reads_dino
    key = ("rivals", "Patch memory (DINOv2), 4 normal shots")
    assert values(plain[key][2])["--model_name"] == "dinov2_vits14"
    assert "--model_name" not in values(given[key][2])  # what the file holds
    clip = runs("rivals", "--clip_path", "clip.pt", "--model_name", "ViT-L-14-336")
    assert "--clip_path" not in values(clip[key][2])
    assert clip[key][2].flags.count("--model_name") == 1
    demo = values(runs("rivals", "--demo")[key][2])
    assert demo["--model_name"] == "dinov2-demo"
    assert (
        demo["--img_size"]
        == values(runs("rivals", "--demo")["rivals", "CLIP, text"][2])["--img_size"]
    )


def test_missing_weights_are_named_by_their_network(tmp_path, demo_weights, demo_root):
    folders = ["--data_path", str(demo_root / "data")]
    folders += ["--fewshot_path", str(demo_root / "fewshot_seed")]
    dino = str(write_demo_dino(tmp_path))
    nothing = str(tmp_path / "nothing.pt")

    def missing(clip: str, dino: str) -> dict[str, str]:
        weights = ["--clip_path", clip, "--dino_path", dino]
        options = parse(["rivals", *OBJECTS, *folders, *weights]).options
        return {spec.row: missing_input(spec, options) for spec in cell_specs(options)}

    patch = "Patch memory (DINOv2), 4 normal shots"
    reasons = missing(str(demo_weights), nothing)
    assert {row for row, reason in reasons.items() if reason} == {patch}
    assert reasons[patch] == "no DINOv2 weights"
    reasons = missing(nothing, dino)
    assert {row for row, reason in reasons.items() if not reason} == {patch}
    assert reasons["CLIP, zero-shot"] == "no CLIP weights"


def test_published_adapters_leave_methods_without_training_as_they_are(tmp_path):
    options = parse(["rivals", *OBJECTS, "--published", str(tmp_path)]).options
    trained = [row for row, (script, _, _) in ROWS.items() if script]
    for spec in cell_specs(options):
        _, test = jobs_of(spec, options, Path("runs"))
        ckpt = any(flag.startswith("--ckpt=") for flag in test.flags)
        assert ckpt == (spec.row in trained), spec.row


def test_untrained_zero_shot_methods_need_no_other_object(tmp_path, demo_root, demo_weights):
    data = tmp_path / "data"
    data.mkdir()
    (data / "Brain_AD").symlink_to(demo_root / "data" / "Brain_AD")
    flags = ["rivals", *OBJECTS, "--data_path", str(data), "--clip_path", str(demo_weights)]
    options = parse(flags).options
    reasons = {spec.row: missing_input(spec, options) for spec in cell_specs(options)}
    assert reasons["CLIP, zero-shot"] == reasons["WinCLIP, zero-shot"] == ""
    assert reasons["MVFA, zero-shot"].startswith("no images of ")


def test_the_april_gan_form_is_a_recipe_with_its_own_words():
    assert RECIPES["april_gan"] == replace(RECIPES["released"], projector="all")
    text = " ".join(build_parser("train_few").format_help().split())
    assert "(default: released none, paper last, april_gan all)" in text
    assert len(re.findall(r", april_gan \S+\)", text)) == 1  # other fields are the released ones
    options = {"recipe_name": "april_gan", "recipe": RECIPES["april_gan"].as_dict()}
    assert "linear projectors instead of adapters." in recipe_sentence(options)


SPEC = TableSpec(
    "rivals", "Methods", "", ("first", "second", "third"), ("Brain", "Liver"), methods=True
)


def measured(row: str, obj: str, folder: Path, seed: int = 111, branch: str = "both") -> Cell:
    """Make a done cell whose runs have recorded what they cost."""
    trained = row == "first"
    memory = {"host": 300 * MIB + 1}
    metrics = {
        "image_auroc": 0.9,
        "trained_parameters": 1234 if trained else 0,
        "cost": {"bank_bytes": 3 * MIB, "image_seconds": 0.25 if obj == "Brain" else 0.75},
        "peak_memory_bytes": memory if trained else memory | {"cuda": 200 * MIB},
        "options": {"method": "mvfa" if trained else "clip", "script": "test_few", "recipe": {}},
    }
    training = {
        "seconds": 10.0 + seed,
        "peak_memory_bytes": {"host": 700 * MIB},
        "options": {"script": "train_few", "epoch": 3},
    }
    return Cell(
        "rivals",
        row,
        obj,
        seed,
        0,
        DONE,
        metrics=metrics,
        training=training if trained else {},
        folder=folder / f"{obj}-{seed}-{'first' if trained else 'other'}",
        training_folder=folder / f"{obj}-{seed}-{'first' if trained else 'other'}-train",
        branch=branch,
    )


@pytest.fixture
def study(tmp_path) -> Study:
    cells = [measured("first", obj, tmp_path, seed) for obj in SPEC.objects for seed in (1, 3)]
    cells += [measured("second", "Brain", tmp_path), measured("third", "Brain", tmp_path)]
    return Study("S", False, (SPEC,), tuple(cells))


def test_costs_are_those_of_the_runs(study):
    costs = cost_table(study, SPEC)
    records = {(r["row"], r["object"]): r for r in costs.records}
    # the third row shows another branch of the second's run
    assert list(records) == [
        *[("first", AVERAGE), ("first", "Brain"), ("first", "Liver")],
        *[("second", AVERAGE), ("second", "Brain")],
    ]
    first = records["first", AVERAGE]
    assert (first["parameters"], first["runs"], first["memory"]) == (1234, 4, "host")
    assert first["training_seconds"] == 12.0
    assert first["image_seconds"] == 0.5
    assert (first["training_memory"], first["test_memory"], first["bank"]) == (700, 300, 3)
    assert records["first", "Liver"]["image_seconds"] == 0.75
    second = records["second", "Brain"]
    assert (second["parameters"], second["training_seconds"]) == (0, 0.0)
    assert (second["test_memory"], second["memory"]) == (
        200,
        "cuda",
    )  # the GPU's, where there is one
    assert averages(costs).columns[1].key == "parameters"
    assert [r["row"] for r in averages(costs).records] == ["first", "second"]


def test_costs_that_were_not_recorded_are_empty():
    cell = Cell("rivals", "first", "Brain", 111, 0, DONE, metrics={"image_auroc": 0.9})
    costs = cost_table(Study("S", False, (SPEC,), (cell,)), SPEC)
    shown = [column.text(costs.records[0][column.key]) for column in costs.columns]
    assert shown == ["first", AVERAGE, "", "", "", "", "", "", "", "1"]


def test_the_section_shows_costs_and_paired_tests(study, tmp_path):
    page = write_report(study, tmp_path / "report")
    text = page.read_text()
    for name in ("rivals-costs-average", "rivals-costs", "rivals-paired"):
        assert f'id="long-{name}"' in text
        assert (tmp_path / "report" / "csv" / f"{name}.csv").is_file()
    assert text.count('id="rivals"') == text.count('id="published"') == 1
    heads = {
        name: (page.parent / "csv" / f"{name}.csv").read_text().split(",")[0]
        for name in ("rivals", "published")
    }
    assert heads == {"rivals": "row", "published": "method"}
    markdown = (page.parent / "tables.md").read_text()
    assert "### Cost" in markdown
    other = Study("S", False, (replace(SPEC, methods=False),), study.cells)
    assert "### Cost" not in (write_report(other, tmp_path / "o").parent / "tables.md").read_text()


def test_methods_without_training_have_settings_of_their_own(study):
    settings = study_settings(study.cells)
    assert settings["Few-shot training"]["epoch"] == "3"
    assert "Without training" in settings
    assert "Zero-shot training" not in settings


def write_scores(folder: Path, labels: np.ndarray, scores: np.ndarray) -> Path:
    """Write a scores.csv whose text scores are the others reversed; return its folder."""
    folder.mkdir()
    lines = ["file,label,score,text_score,memory_score,case,slice"]
    lines += [
        f"{i}.png,{int(y)},{s},{-s},,," for i, (y, s) in enumerate(zip(labels, scores, strict=True))
    ]
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_each_row_is_compared_with_the_first(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 1
    good = write_scores(tmp_path / "good", labels, generator.normal(size=60) + 3 * labels)
    bad = write_scores(tmp_path / "bad", labels, generator.normal(size=60) + 0.5 * labels)

    def scored(row: str, folder: Path, branch: str = "both", seed: int = 111) -> Cell:
        metrics = {"image_auroc": 0.5}
        return Cell(
            *("rivals", row, "Brain", seed, 0, DONE), metrics=metrics, folder=folder, branch=branch
        )

    rows = [scored("first", bad), scored("second", good), scored("third", good, "text")]
    rows.append(scored("third", good, seed=112))  # the first row has no such run
    records = reference_table(Study("S", False, (SPEC,), tuple(rows)), SPEC, read_scores).records
    assert [(r["row"], r["verdict"]) for r in records] == [("second", "better"), ("third", "worse")]
    better, worse = records
    assert better["first"] == pytest.approx(100 - worse["first"])  # the scores of its branch
    assert better["difference"] == pytest.approx(better["first"] - better["second"])
    assert better["second"] == worse["second"]
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["images"] == 60


def test_every_method_has_its_protocol(study):
    """As the first row's, and once for the rows of one run."""
    *others, third = study.cells
    options = third.metrics["options"] | {"method": "winclip"}
    third = replace(third, metrics=third.metrics | {"options": options}, training_folder=None)
    found = protocols([*others, study.cells[-1], third])
    assert [label.split(",")[0] for label, _ in found] == ["first", "second", "third"]
    assert "by CLIP, given" in found[1][1]


def test_what_a_run_cost_is_checked_when_it_is_read():
    good = {"image_auroc": 0.9, "seconds": 2.5, "peak_memory_bytes": {"host": 3, "cuda": 4}}
    assert not problem(good, FORM)
    for name, bad in (
        ("seconds", "2.5"),
        ("peak_memory_bytes", {"host": 0.5}),
        ("trained_parameters", -1.5),
        ("cost", {"bank_bytes": "3"}),
        ("cost", {"image_seconds": []}),
        ("options", {"method": 3}),
    ):
        assert problem(good | {name: bad}, FORM), name


@pytest.mark.skipif(not HOST_PEAK.exists(), reason="only Linux forgets a process's peak memory")
def test_the_peak_memory_of_a_run_is_not_that_of_an_earlier_one(tmp_path, monkeypatch):
    peaks = []
    script = SimpleNamespace(main=lambda _: peaks.append(peak_memory(torch.device("cpu"))["host"]))
    monkeypatch.setattr(reproduce, "import_module", lambda _: script)
    large = torch.ones(2**26)  # 256 MiB
    before = peak_memory(torch.device("cpu"))["host"]
    del large
    assert reproduce.run_job(Job("test_few", (), tmp_path / "test")) == ""
    assert peaks[0] < before - 200 * MIB


def test_a_verdict_needs_every_test():
    low = LEVEL / 2
    cases = {
        "better": {"p_delong": low, "p_permutation": low, "difference": 1.0},
        "worse": {"p_delong": None, "p_permutation": low, "difference": -1.0},
        "not shown": {"p_delong": low, "p_permutation": LEVEL, "difference": -1.0},
        "": {"note": "not compared"},
    }
    for expected, record in cases.items():
        assert verdict(record) == expected

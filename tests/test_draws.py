"""Seeded draws of shots: nested, by case, and readable as shot lists."""

import subprocess
import sys
from pathlib import Path

import pytest

from dataset.cases import case_of, group_by_case
from dataset.catalog import object_info
from dataset.draws import draw_lists, write_lists
from dataset.shots import choose_shots
from errors import UserError
from prepare_data import main

ROOT = Path(__file__).parent.parent
PLAIN = [f"{n:03d}.png" for n in range(40)]
# 1 to 3 slices of each of 6 cases
SLICES = [f"{case:05d}_{n}.png" for case in range(6) for n in (40, 50, 60)[: 1 + case % 3]]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("00003_60.png", "00003"),
        ("case_12_slice_40.png", "case_12_slice"),
        ("12_034.png", "12"),
        ("NORMAL-1017237-1.jpeg", "NORMAL-1017237"),
        ("000.png", "000"),
        ("_7.png", "_7"),
        ("a_b.png", "a_b"),
        ("scan.v2_3.tif", "scan.v2"),
    ],
)
def test_case_of_a_name(name, case):
    assert case_of(name) == case


def test_names_that_show_no_case_are_cases_of_their_own():
    for names in (PLAIN, ["slice_1.png", "slice_2.png", "slice_3.png"], ["a_1.png", "b_1.png"]):
        assert group_by_case(names[::-1]) == [[name] for name in names]
    assert group_by_case(["b_2.png", "b_1.png", "a_1.png", "x.png"]) == [
        ["a_1.png"],
        ["b_1.png", "b_2.png"],
        ["x.png"],
    ]


def test_draws_are_nested_whatever_else_is_asked_for():
    lists = draw_lists(PLAIN, [2, 4, 16], 5, 111)
    for small, large in ((2, 4), (4, 16)):
        assert [names[:small] for names in lists[large]] == lists[small]
    for k, draws in lists.items():
        assert all(len(set(names)) == k for names in draws)
        assert set().union(*draws) <= set(PLAIN)
    assert draw_lists(PLAIN, [4], 2, 111)[4] == lists[4][:2]


def test_a_draw_depends_on_seed_number_and_tag_alone():
    drawn = draw_lists(PLAIN, [16], 5, 111)[16]
    assert draw_lists(PLAIN[::-1], [16], 5, 111)[16] == drawn
    assert len({frozenset(names) for names in drawn}) == 5
    assert draw_lists(PLAIN, [16], 5, 112)[16] != drawn
    assert draw_lists(PLAIN, [16], 5, 111, tag="a")[16] != drawn


def test_every_image_is_drawn_equally_often():
    names = PLAIN[:8]
    counts = dict.fromkeys(names, 0)
    for (chosen,) in (draw_lists(names, [2], 1, seed)[2] for seed in range(2_000)):
        for name in chosen:
            counts[name] += 1
    # within 5 standard deviations of a binomial distribution (2,000, 1/4)
    assert all(abs(count - 500) < 5 * 19.4 for count in counts.values())


def test_shots_come_from_as_many_cases_as_possible():
    for k in range(1, len(SLICES) + 1):
        for names in draw_lists(SLICES, [k], 20, 1)[k]:
            taken = [case_of(name) for name in names]
            assert len(set(taken)) == min(k, 6)
            available = {case: sum(case_of(name) == case for name in SLICES) for case in set(taken)}
            # no case gives a second or third image before every other case that has one
            assert all(
                taken.count(case) >= min(available[case], max(map(taken.count, taken)) - 1)
                for case in taken
            )
    # not always the first slice of a case
    assert set().union(*draw_lists(SLICES, [6], 50, 1)[6]) == set(SLICES)
    loose = draw_lists(SLICES, [6], 20, 1, by_case=False)[6]
    assert any(len({case_of(name) for name in names}) < 6 for names in loose)


def test_all_images_may_be_drawn_but_not_more():
    assert sorted(draw_lists(PLAIN, [40], 1, 0)[40][0]) == PLAIN
    for k in (0, 41):
        with pytest.raises(UserError, match=f"--shots {k}: there are 40 images"):
            draw_lists(PLAIN, [k], 1, 0)


def test_written_lists_are_read(demo_root, tmp_path, capsys):
    argv = f"draw --obj Brain --data_path {demo_root}/data --fewshot_path {tmp_path}"
    argv += " --shots 4 2 --draws 3 --seed 5"
    assert main(argv.split()) == [tmp_path / "Brain" / f"{k}-shot.txt" for k in (2, 4)]
    assert capsys.readouterr().out.split() == [
        f"{tmp_path}/Brain/2-shot.txt",
        f"{tmp_path}/Brain/4-shot.txt",
    ]
    files = [f"{n:03d}.png" for n in range(4)]
    expected = [draw_lists(files, [2], 3, 5, tag=tag)[2] for tag in "na"]
    for draw in range(3):
        few, more = (
            choose_shots(
                demo_root / "data", object_info("Brain"), k, lists=tmp_path, seed=0, draw=draw
            ).names()
            for k in (2, 4)
        )
        assert few == {"normal": expected[0][draw], "abnormal": expected[1][draw]}
        assert all(more[state][:2] == few[state] for state in few)
    with pytest.raises(UserError, match="no line 'n-3'"):
        choose_shots(demo_root / "data", object_info("Brain"), 2, lists=tmp_path, seed=0, draw=3)


def test_an_existing_list_is_kept_without_overwrite(demo_root, tmp_path):
    def write(seed: int, **options) -> None:
        write_lists(demo_root / "data", "Chest", tmp_path, [2, 4], draws=1, seed=seed, **options)

    path = tmp_path / "Chest/4-shot.txt"
    path.parent.mkdir()
    path.write_text("n-0: published\n")
    with pytest.raises(
        UserError, match=r"4-shot.txt would be lost; pass --overwrite, or another folder"
    ):
        write(1)
    assert path.read_text() == "n-0: published\n"
    assert [p.name for p in path.parent.iterdir()] == ["4-shot.txt"]  # nothing half done
    write(1, overwrite=True)
    first = path.read_text()
    write(1, overwrite=True)
    assert path.read_text() == first != "n-0: published\n"
    (tmp_path / "Chest/2-shot.txt").unlink()
    write(1)  # as after a stopped command: what is there is what it would write
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(UserError, match=r"2-shot.txt, .*4-shot.txt would be lost"):
        write(2)


def make_folder(root: Path, names: list[str]) -> None:
    """Two folders of empty files: a draw reads names only."""
    for state in ("good", "Ungood"):
        folder = root / "Chest_AD/valid" / state / "img"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()


def test_lists_go_by_case_by_default(tmp_path):
    make_folder(tmp_path, SLICES)

    def cases(*more: str) -> list[int]:
        argv = f"draw --obj Chest --data_path {tmp_path} --fewshot_path {tmp_path}"
        argv += " --shots 6 --draws 20 --overwrite"
        (path,) = main([*argv.split(), *more])
        return [
            len({case_of(name) for name in line.split()[1:]})
            for line in path.read_text().splitlines()
        ]

    assert cases() == [6] * 40
    assert min(cases("--by_case", "no")) < 6


def test_what_cannot_be_drawn_is_refused(demo_root, tmp_path):
    with pytest.raises(
        UserError,
        match=r"--shots 5: .*Brain_AD/valid/good/img has 4 images; choose at most as many",
    ):
        write_lists(demo_root / "data", "Brain", tmp_path, [2, 5], draws=1, seed=1)
    make_folder(tmp_path, ["a.png", "b c.png"])
    with pytest.raises(UserError, match=r"b c.png has white space in its name"):
        write_lists(tmp_path, "Chest", tmp_path / "lists", [1], draws=1, seed=1)
    assert not (tmp_path / "Brain").exists()
    assert not (tmp_path / "lists").exists()


def test_a_mistake_is_one_line(tmp_path):
    argv = [sys.executable, "prepare_data.py", "draw", "--obj", "Brain"]
    argv += ["--data_path", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no folder ")
    assert done.stderr.count("\n") == 1


def test_help_needs_no_torch():
    code = "import sys, prepare_data; prepare_data.parse(['draw', '--obj', 'Brain']); "
    code += "print('torch' in sys.modules)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "argv", ["--shots 0", "--draws 0", "--obj a/b", "--shot 2", "--by_case maybe"]
)
def test_unknown_settings_are_refused(argv):
    with pytest.raises(UserError, match=argv.split()[0]):
        main(["draw", "--obj", "Brain", *argv.split()])

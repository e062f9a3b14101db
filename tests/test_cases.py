"""Cases and slice numbers: names of the benchmark, patterns, cases.csv, and refused guesses."""

from pathlib import Path

import pytest

from dataset import patterns
from dataset.cases import UNKNOWN, Place, group_by_case, listed_cases, places, read_place
from dataset.catalog import CATALOG, ObjectInfo, object_info
from dataset.draws import draw_lists, write_lists
from errors import UserError
from tests.script_runs import Runs

OWN = ObjectInfo("Thyroid", "thyroid", masks=False)
STATES = ("good", "Ungood")


@pytest.mark.parametrize(
    ("obj", "name", "place"),
    [  # as the authors' shot lists have them
        ("Brain", "01368_60.png", Place("01368", 60)),
        ("Liver", "4_487.png", Place("4", 487)),
        ("Retina_RESC", "15_39.png", Place("15", 39)),
        # the number of the image is not the depth of a slice
        ("Retina_OCT2017", "NORMAL-5171640-1.jpeg", Place("5171640")),
        ("Retina_OCT2017", "DRUSEN-9837663-2.jpeg", Place("9837663")),
        ("Histopathology", "1116.png", UNKNOWN),
        ("Chest", "Normal-ff5b2932-f065-4b79-b2f8-ec2143ffc977.png", UNKNOWN),
        # names that the authors did not give
        ("Brain", "scan_a_7.png", Place("scan_a", 7)),
        ("Brain", "000.png", UNKNOWN),
    ],
)
def test_names_of_the_benchmark(obj, name, place):
    assert read_place(name, object_info(obj)) == place


def test_a_pattern_comes_before_the_authors_names():
    pattern = r"(?P<slice>\d+)_(?P<case>\d+)"
    info = ObjectInfo("Brain", "Brain", masks=True, cases=pattern, names=CATALOG["Brain"].names)
    assert read_place("00003_60.png", info) == Place("60", 3)
    assert read_place("00003_60.png", pattern) == Place("60", 3)
    assert read_place("other.png", info) == UNKNOWN
    words = r"(?P<case>p\d+)-(?P<slice>\w+)?"
    assert read_place("p1-12.png", words) == Place("p1", 12)
    assert read_place("p1-left.png", words) == read_place("p1-.png", words) == Place("p1")


def read(*names: str, info: ObjectInfo = OWN, folder: Path = Path("none")) -> list[Place]:
    return places([Path(name) for name in names], info, folder)


def test_the_general_rule_is_believed_where_it_groups():
    assert read("p1_1.png", "p1_2.png", "p2_1.png", "x.png") == [
        Place("p1", 1),
        Place("p1", 2),
        Place("p2", 1),
        UNKNOWN,
    ]
    for names in (
        ("s1_1.png", "s1_2.png", "s1_3.png"),  # one case: numbers of images
        ("p1_1.png", "p2_1.png", "p3_1.png"),  # no two images of a case
        ("tumor_1.png", "tumor_2.png", "normal_1.png"),  # classes
        ("1.png", "2.png"),
        (),
    ):
        assert read(*names) == [UNKNOWN] * len(names)
    # the names of the benchmark need not group: Brain's valid has one slice of each normal case
    brain = object_info("Brain")
    assert read("00001_60.png", "00002_99.png", info=brain) == [
        Place("00001", 60),
        Place("00002", 99),
    ]
    assert read("p1_1.png", "p1_2.png", "p2_1.png", info=brain)[0] == Place("p1", 1)


def make(data: Path, obj: str, valid: list[str], test: list[str]) -> Path:
    """Make empty images of both labels; return the object's folder."""
    for split, names in (("valid", valid), ("test", test)):
        for state in STATES:
            folder = data / f"{obj}_AD" / split / state / "img"
            folder.mkdir(parents=True)
            for name in names:
                (folder / name).touch()
    return data / f"{obj}_AD"


def test_a_table_comes_first(tmp_path):
    top = make(tmp_path, "Thyroid", [], ["p1_1.png", "p1_2.png", "p2_1.png"])
    (top / "cases.csv").write_text(
        "\ufefffile,slice,note,case\n"
        "test/good/img/p1_1.png,7,x,ann\n"
        "test/good/img/p1_2.png,,y,bob\n"
        "test/Ungood/img/p1_1.png,3,z,\n",
        encoding="utf-8",
    )
    good = [top / "test/good/img" / f"{name}.png" for name in ("p1_1", "p1_2", "p2_1")]
    bad = [top / "test/Ungood/img" / f"{name}.png" for name in ("p1_1", "p1_2", "p2_1")]
    assert places([*good, *bad], OWN, top) == [
        Place("ann", 7),
        Place("bob", None),
        Place("p2", 1),  # not listed: by its name
        Place(None, 3),
        Place("p1", 2),
        Place("p2", 1),
    ]
    assert listed_cases([*good, *bad], top) == {good[0]: "ann", good[1]: "bob"}


def test_a_table_may_name_a_file_that_is_there_once(tmp_path):
    top = make(tmp_path, "Thyroid", [], ["a.png", "b.png"])
    (top / "cases.csv").write_text("file,case\na.png,ann\n./test\\good\\img\\b.png,bob\n")
    files = [top / "test/good/img" / name for name in ("a.png", "b.png")]
    outside = tmp_path / "elsewhere/a.png"
    assert places([*files, outside], OWN, top) == [Place("ann"), Place("bob"), UNKNOWN]
    with pytest.raises(UserError, match=r"cases\.csv lists a\.png, a name of 2 images; write the"):
        places([*files, top / "test/Ungood/img/a.png"], OWN, top)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,case\na.png,1\n", r"has no column file; it has name case, allowed are file, case, "),
        ("", r"has no column file case; it has none"),
        ("file,case\n,1\n", r"line 2 names no file"),
        ("file,case,slice\na.png,1,x\n", r"line 2: slice 'x'; allowed are whole numbers"),
        ("file,case,slice\na.png,1,-3\n", r"line 2: slice '-3'"),
        ("file,case\na.png,1\na.png,2\n", r"line 3: a\.png is listed before, with another case"),
        (b"file,case\n\xff\xfe,1\n", r"is not text in UTF-8 \(byte 10\)"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, text, message):
    (tmp_path / "cases.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"cases\.csv.*{message}") as error:
        places([tmp_path / "a.png"], OWN, tmp_path)
    assert "\n" not in str(error.value)


def test_draws_spread_over_the_cases_of_a_table(tmp_path):
    names = [f"{number}.png" for number in range(6)]
    top = make(tmp_path, "Thyroid", names, [])
    rows = [f"valid/good/img/{n}.png,{'ann' if n < 4 else 'bob'}" for n in range(6)]
    (top / "cases.csv").write_text("\n".join(["file,case", *rows]) + "\n")
    (path,) = write_lists(tmp_path, "Thyroid", tmp_path / "lists", [2], draws=30, seed=1)
    drawn = {"n": [], "a": []}
    for line in path.read_text().splitlines():
        drawn[line[0]].append({int(name[0]) < 4 for name in line.split(": ")[1].split()})
    assert drawn["n"] == [{True, False}] * 30
    assert drawn["a"] != [{True, False}] * 30  # not in the table: images are their own cases
    known = {f"{n}.png": "ann" for n in range(6)}
    assert group_by_case(names, known=known) == [names]


def test_seeded_draws_of_the_benchmark_stay_as_they_were(tmp_path):
    """The authors' names give OCT2017's patient without the class; draws by seed never did."""
    names = ["CNV-12-1.jpeg", "CNV-12-2.jpeg", "DRUSEN-12-1.jpeg", "DME-7-1.jpeg"]
    make(tmp_path, "Retina_OCT2017", names, [])
    (path,) = write_lists(tmp_path, "Retina_OCT2017", tmp_path / "lists", [3], draws=5, seed=1)
    expected = draw_lists(names, [3], 5, 1, tag="a")[3]
    assert [line.split()[1:] for line in path.read_text().splitlines()[1::2]] == expected
    assert group_by_case(names) == [["CNV-12-1.jpeg", "CNV-12-2.jpeg"], [names[3]], [names[2]]]


def test_scores_have_case_and_slice(tiny_path, demo_root, tmp_path):
    """Where nothing is known the columns are empty; a table of the object fills them."""
    runs = Runs(tiny_path, demo_root, tmp_path)
    runs("train_few", "Histopathology")
    for row in runs.scores("train_few"):
        assert list(row)[-2:] == ["case", "slice"]
        assert (row["case"], row["slice"]) == ("", "")
    data = tmp_path / "data"
    data.mkdir()
    top = data / "Histopathology_AD"
    top.mkdir()
    for split in ("valid", "test"):
        (top / split).symlink_to(demo_root / "data/Histopathology_AD" / split)
    (top / "cases.csv").write_text("file,case,slice\ntest/Ungood/img/001.png,slide 5,17\n")
    runs("test_few", "Histopathology", data=data)
    filled = {
        row["file"]: (row["case"], row["slice"])
        for row in runs.scores("test_few")
        if row["case"] or row["slice"]
    }
    assert filled == {"Histopathology_AD/test/Ungood/img/001.png": ("slide 5", "17")}
    (top / "cases.csv").write_text("file,case,slice\nx.png,1,one\n")
    with pytest.raises(UserError, match=r"cases\.csv line 2: slice 'one'"):
        runs("test_few", "Histopathology", data=data)


def test_a_pattern_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    name = "a" * 60 + "!.png"
    with pytest.raises(UserError, match=r"the pattern of cases .* takes more than 0.2 s for aaa"):
        read_place(name, r"(?P<case>(?:a|aa)+)$b")
    assert read_place("aa.png", r"(?P<case>(?:a|aa)+)$") == Place("aa")

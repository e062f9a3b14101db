"""Every layout becomes a folder that `check` finds no error in; every mistake is one line."""

import csv
import json
import random
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cases import Place, group_by_case, places
from dataset.catalog import find_object
from dataset.folder import list_split
from dataset.layout import LABELS, SPLITS, image_folder, list_images
from errors import UserError
from preparation.audit import check_objects
from preparation.convert import convert, find_layout
from preparation.convert_names import carry_cases, entry_cases, gives_back, unique_names, unite
from preparation.convert_plan import Request, summary
from preparation.convert_sources import Entry, place
from preparation.convert_split import apportion, split_sides
from prepare_data import main

SHAPE = (8, 10)


def paint(path: Path, seed: int, suffix: str = "") -> Path:
    """Write an image that differs from those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3), np.uint8)
    Image.fromarray(values).save(path.with_name(path.name + suffix))
    return path


def paint_mask(path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:5] = value
    Image.fromarray(mask).save(path)


def request_of(source: Path, data: Path, **changes) -> Request:
    return replace(Request(source, "Thyroid", data), **changes)


def run(source: Path, data: Path, **changes):
    """Convert, check that the result has no error, and return it with its counts."""
    conversion = convert(request_of(source, data, **changes))
    name = changes.get("name", "Thyroid")
    report = check_objects(data, [name], data / "no lists")
    assert report.count("error") == 0, report.text()
    counts = {(row.split, row.state): row.images for row in report.objects[0].rows}
    return conversion, tuple(counts[split, state] for split in SPLITS for state in LABELS)


def names_of(data: Path, split: str, state: str, name: str = "Thyroid") -> list[str]:
    return [path.name for path in list_images(image_folder(data, name, split, state))]


def rows_of(data: Path, name: str = "Thyroid") -> list[dict[str, str]]:
    with (data / f"{name}_AD" / "conversion.csv").open() as file:
        return list(csv.DictReader(file))


def write_csv(folder: Path, rows: list[dict[str, object]], separator: str = ",") -> Path:
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def table(tmp_path):
    """Write 20 normal and 10 abnormal images of 10 patients with masks; return the CSV's rows."""
    rows = []
    for number in range(30):
        abnormal = number % 3 == 2
        paint(tmp_path / "source" / "images" / f"{number}.png", number)
        mask = ""
        if abnormal:
            mask = f"masks/{number}.png"
            paint_mask(tmp_path / "source" / mask)
        rows.append(
            {
                "image": f"images/{number}.png",
                "label": int(abnormal),
                "mask": mask,
                "case": f"P {number // 3}",
            }
        )
    return rows


def test_a_table_becomes_an_object(table, tmp_path):
    data = tmp_path / "data"
    path = write_csv(tmp_path / "source", table)
    conversion, counts = run(path, data, noun="thyroid ultrasound")
    assert counts == (4, 2, 16, 8)
    info = find_object(data, "Thyroid")
    assert (info.noun, info.masks, info.mask_rule) == ("thyroid ultrasound", True, "half")
    # names give the patients back
    everything = [n for split in SPLITS for state in LABELS for n in names_of(data, split, state)]
    assert len(everything) == 30
    assert sorted(map(len, group_by_case(everything, info.cases))) == [3] * 10
    cases = defaultdict(set)
    for row in rows_of(data):
        cases[row["case"]].add(row["image"].split("/")[0])
        assert Path(row["source"]).read_bytes() == (data / "Thyroid_AD" / row["image"]).read_bytes()
    assert len(cases) == 10
    assert all(len(sides) == 1 for sides in cases.values())
    for record in list_split(data, info, "test"):
        assert (record.mask is not None) == bool(record.label)
    lines = summary(conversion)
    assert lines[0] == "layout csv: 30 images, 10 masks"
    assert "cases (patients): 2 in valid and 8 in test" in lines
    content = json.loads((data / "Thyroid_AD" / "conversion.json").read_text())
    assert content["summary"] == lines
    assert (content["valid"], content["seed"]) == (0.2, 111)


def test_a_conversion_depends_on_its_seed_alone(table, tmp_path):
    path = write_csv(tmp_path / "source", table)

    def images(folder: str, seed: int) -> list[str]:
        convert(request_of(path, tmp_path / folder, seed=seed))
        return [row["image"] for row in rows_of(tmp_path / folder)]

    assert images("a", 1) == images("b", 1)
    assert len({tuple(images(f"s{seed}", seed)) for seed in range(2, 7)}) > 1


def test_without_case_names_files_keep_their_names(table, tmp_path):
    path = write_csv(tmp_path / "source", table)
    conversion, _ = run(path, tmp_path, case_names=False)
    assert any("file names do not show the cases" in note for note in conversion.notes)
    assert {Path(row["image"]).name for row in rows_of(tmp_path)} == {f"{n}.png" for n in range(30)}


def places_of(data: Path) -> dict[str, Place]:
    """Return the case and slice number of each file of conversion.csv, by the file it came from."""
    top = data / "Thyroid_AD"
    rows = rows_of(data)
    found = places([top / row["image"] for row in rows], find_object(data, "Thyroid"), top)
    return {Path(row["source"]).stem: place for row, place in zip(rows, found, strict=True)}


def test_cases_that_names_do_not_show_are_listed(table, tmp_path):
    run(write_csv(tmp_path / "source", table), tmp_path)
    assert not (tmp_path / "Thyroid_AD/cases.csv").exists()  # the names carry them
    run(write_csv(tmp_path / "source", table), tmp_path, case_names=False, overwrite=True)
    expected = {str(n): Place(f"P {n // 3}") for n in range(30)}
    assert places_of(tmp_path) == expected


def test_slice_numbers_are_listed(table, tmp_path):
    for number, row in enumerate(table):
        row["slice"] = "" if number == 7 else number % 3
    run(write_csv(tmp_path / "source", table), tmp_path)
    expected = {str(n): Place(f"P {n // 3}", None if n == 7 else n % 3) for n in range(30)}
    assert places_of(tmp_path) == expected
    run(write_csv(tmp_path / "source", table), tmp_path, cases="no", overwrite=True)
    assert places_of(tmp_path)["8"] == Place(None, 2)


def test_a_table_may_say_the_splits(table, tmp_path):
    for number, row in enumerate(table):
        row["split"] = "val" if number < 6 else "Test"
        row["label"] = ("Normal", "Ungood")[row["label"]]
    path = write_csv(tmp_path / "source", table, ";")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets write it
    _, counts = run(path, tmp_path)
    assert counts == (4, 2, 16, 8)


def test_rows_without_a_split_follow_their_case(table, tmp_path):
    for row in table:
        row["split"] = ""
    table[0]["split"] = "valid"
    run(write_csv(tmp_path / "source", table), tmp_path)
    sides = {row["image"].split("/")[0] for row in rows_of(tmp_path) if row["case"] == "P 0"}
    assert sides == {"valid"}


def test_a_table_may_name_classes(table, tmp_path):
    for number, row in enumerate(table):
        row["label"] = ("benign", "malignant")[row["label"]] if number else "unsure"
    path = write_csv(tmp_path / "source", table)
    conversion, counts = run(path, tmp_path, normal=("Benign",), abnormal=("malignant",))
    assert sum(counts) == 29
    assert {place.entry.kind for place in conversion.places} == {"benign", "malignant"}
    with pytest.raises(
        UserError, match=r"no class tumour; its classes are unsure benign malignant"
    ):
        convert(request_of(path, tmp_path / "x", normal=("tumour",)))
    with pytest.raises(UserError, match="--abnormal needs --normal"):
        convert(request_of(path, tmp_path / "x", abnormal=("malignant",)))


def drop(column: str):
    return lambda rows, _: [row.pop(column) for row in rows]


def change(column: str, value: object, row: int = 5):
    return lambda rows, _: rows[row].update({column: value})


MISTAKES = {  # of a table
    "missing column": (drop("label"), r"has no column label; it has image mask case; add"),
    "unknown label": (
        change("label", "ill"),
        r"1 x label that is not 0, 1, .*: 'ill', lines 7; fix",
    ),
    "missing image": (change("image", "x.png"), r"1 x missing image file: 'x.png', lines 7"),
    "missing mask": (change("mask", "x.png"), r"1 x missing mask file: 'x.png', lines 7"),
    "no name": (change("image", ""), r"1 x no image: '', lines 7"),
    "twice": (change("image", "images/4.png"), r"1 x image that is named twice: 'images/4.png'"),
    "no mask": (
        change("mask", ""),
        r"1 of 10 abnormal images without a mask, while others have one .*5\.png.* pass --masks no",
    ),
    "unknown split": (
        lambda rows, _: [row.update(split="train") for row in rows],
        r"30 x split that is not valid, test or empty: 'train' 'train' 'train' ..., lines 2 3 4 ",
    ),
    "slice in words": (
        lambda rows, _: [row.update(slice="12") for row in rows] and rows[3].update(slice="top"),
        r"1 x slice that is no whole number of at most 18 digits: 'top', lines 5",
    ),
    "one label": (
        lambda rows, _: [row.update(label=0) for row in rows],
        r"no abnormal images for valid \(6 normal in valid, 0 abnormal in valid, 24 normal in test",
    ),
    "unreadable image": (
        lambda _, folder: (folder / "images" / "5.png").write_bytes(b"no image"),
        r"1 file that cannot be read \(.*5\.png\); the first is not a readable image",
    ),
    "another type": (
        lambda rows, folder: (
            shutil.copy(folder / "images" / "5.png", folder / "images" / "5.npy"),
            rows[5].update(image="images/5.npy"),
        ),
        r"1 x image of another type than \.png",
    ),
    "mask of another shape": (
        lambda _, folder: Image.new("L", (8, 10), 255).save(folder / "masks" / "5.png"),
        r"1 mask of another shape than the image \(.*5\.png\)",
    ),
    "marks in alpha": (
        lambda _, folder: alpha_mask().save(folder / "masks" / "5.png"),
        r"1 mask in black, with marks in another channel",
    ),
    "a case on both sides": (
        lambda rows, _: [row.update(split=SPLITS[n % 2]) for n, row in enumerate(rows)],
        r"10 cases in valid and in test \(P 0 P 1 P 2 \.\.\.\)",
    ),
}


def alpha_mask() -> Image.Image:
    mask = Image.new("RGBA", SHAPE[::-1])
    mask.putalpha(Image.new("L", SHAPE[::-1], 255))
    mask.putpixel((0, 0), (0, 0, 0, 0))
    return mask


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_table_is_one_line_and_writes_nothing(table, tmp_path, mistake):
    make, message = MISTAKES[mistake]
    make(table, tmp_path / "source")
    path = write_csv(tmp_path / "source", table)
    with pytest.raises(UserError, match=message) as error:
        convert(request_of(path, tmp_path / "data"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("image,label\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"empty\.csv has no rows"):
        convert(request_of(tmp_path / "empty.csv", tmp_path))
    with pytest.raises(UserError, match=r"binary\.csv is text in UTF-16; save it as UTF-8"):
        convert(request_of(tmp_path / "binary.csv", tmp_path))
    with pytest.raises(UserError, match=r"no file or folder .*absent"):
        convert(request_of(tmp_path / "absent", tmp_path))
    with pytest.raises(UserError, match=r"has none of the layouts csv mvtec bmad"):
        convert(request_of(paint(tmp_path / "some" / "a.png", 1).parent, tmp_path))


def test_masks_of_labels_set_the_rule(table, tmp_path):
    for row in table:
        if row["mask"]:
            paint_mask(tmp_path / "source" / row["mask"], 1)
    conversion, _ = run(write_csv(tmp_path / "source", table), tmp_path)
    assert find_object(tmp_path, "Thyroid").mask_rule == "any"
    assert any("every value above 0 counts" in note for note in conversion.notes)


def test_masks_may_be_left_out(table, tmp_path):
    path = write_csv(tmp_path / "source", table)
    run(path, tmp_path, masks=False)
    assert not find_object(tmp_path, "Thyroid").masks
    run(path, tmp_path, name="Skin")  # an object without masks
    assert not (tmp_path / "Skin_AD" / "test" / "Ungood" / "anomaly_mask").exists()
    for row in table:
        row["mask"] = ""
    with pytest.raises(UserError, match="Liver has masks, the dataset has none"):
        convert(request_of(write_csv(tmp_path / "source", table), tmp_path, name="Liver"))


def write_mvtec(top: Path, masks: bool = True) -> Path:
    """Write 12 normal images of train, 6 of test, and 5 + 10 images of two defects."""
    seeds = count()
    for folder, number in (
        ("train/good", 12),
        ("test/good", 6),
        ("test/scar", 5),
        ("test/big cyst", 10),
    ):
        for index in range(number):
            paint(top / folder / f"{index:03d}.png", next(seeds))
            if masks and not folder.endswith("good"):
                defect = folder.split("/")[1]
                paint_mask(top / "ground_truth" / defect / f"{index:03d}_mask.png")
    return top


def test_mvtec_gives_valid_from_train_and_test(tmp_path):
    source = write_mvtec(tmp_path / "source")
    conversion, counts = run(source, tmp_path)
    assert counts == (12, 3, 6, 12)
    kinds = Counter(p.entry.kind for p in conversion.places if p.split == "valid")
    assert kinds == {"good": 12, "scar": 1, "big cyst": 2}
    taken, train = conversion.notes[:2]
    assert taken.startswith("abnormal images of valid are taken from test by label: share 0.2")
    assert train == "normal images of valid come from train: 12"
    # names of two defects collide
    shown = names_of(tmp_path, "test", "Ungood")
    assert all(name.startswith(("scar-0", "big_cyst-0")) or name[0] == "0" for name in shown)
    for row in rows_of(tmp_path):
        if row["label"] == "1":
            assert Path(row["mask"]).stem == Path(row["source"]).stem + "_mask"
            assert Path(row["mask"]).parent.name == Path(row["source"]).parent.name
    # and defects are not taken for patients
    info = find_object(tmp_path, "Thyroid")
    assert all(len(group) == 1 for group in group_by_case(shown, info.cases))


def test_mvtec_without_masks_and_with_masks_in_one_folder(tmp_path):
    _, counts = run(write_mvtec(tmp_path / "plain", masks=False), tmp_path / "a")
    assert counts == (12, 3, 6, 12)
    assert not find_object(tmp_path / "a", "Thyroid").masks
    flat = tmp_path / "flat"
    for number, name in enumerate("abcdef"):
        paint(flat / "test" / "good" / f"{name}.png", number)
        paint(flat / "test" / "Ungood" / f"{name}.png", 10 + number)
        paint_mask(flat / "ground_truth" / f"{name}_mask.png")
    _, counts = run(flat, tmp_path / "b")  # no train: normal images come from test, too
    assert counts == (1, 1, 5, 5)


def test_of_several_objects_one_has_to_be_named(tmp_path):
    for name in ("bottle", "cable"):
        write_mvtec(tmp_path / name)
    with pytest.raises(UserError, match=r"holds several objects \(bottle cable\); name the folder"):
        convert(request_of(tmp_path, tmp_path / "data", layout="mvtec"))


BMAD = {  # folders of images and of masks by split; {s} good or Ungood
    "Brain": ("train/good/img", "{v}/{s}/img", "{v}/{s}/label", "Ungood"),
    "Liver": ("train/good", "{v}/img/{s}", "{v}/label/{s}", "Ungood"),
    "RESC": ("Train/train/good", "{V}/{v}/{s}", "{V}/{v}_label/{s}", "Ungood"),
    "RESC, newer": ("train/good", "{v}/{s}/img", "{v}/{s}/label", "ungood"),
    "Histopathology": ("train/good", "{v}/{s}", "", "Ungood"),
    "this project": ("", "{v}/{s}/img", "{v}/{s}/anomaly_mask", "Ungood"),
    "wrapped": (
        "Train/hist/train/good",
        "Train/hist/{v}/img/{s}",
        "Train/hist/{v}/label/{s}",
        "Ungood",
    ),
}


def write_bmad(top: Path, kind: str, valid: str = "valid") -> Path:
    train, images, masks, abnormal = BMAD[kind]
    seeds = count()
    for split, cases in ((valid, range(3)), ("test", range(3, 8))):
        for state in ("good", abnormal):
            for case in cases:
                for index in (60, 70):
                    name = f"{case + 10 * (state == 'good'):05d}_{index}.png"
                    words = {"v": split, "V": split.title(), "s": state}
                    paint(top / images.format(**words) / name, next(seeds))
                    if masks and state != "good":
                        paint_mask(top / masks.format(**words) / name)
    if train:
        paint(top / train / "00099_60.png", next(seeds))
    return top


@pytest.mark.parametrize("kind", BMAD)
def test_bmads_layouts_keep_their_splits(tmp_path, kind):
    source = write_bmad(tmp_path / "source", kind, valid="val" if "RESC" in kind else "valid")
    conversion, counts = run(source, tmp_path)
    assert (conversion.layout, counts) == ("bmad", (6, 6, 10, 10))
    info = find_object(tmp_path, "Thyroid")
    assert info.masks == bool(BMAD[kind][2])
    assert info.cases == ""  # the usual rule reads these names
    assert names_of(tmp_path, "test", "Ungood")[:2] == ["00003_60.png", "00003_70.png"]
    assert "cases (patients): 6 in valid and 10 in test" in conversion.notes
    left = [note for note in conversion.notes if "of train are left out" in note]
    assert len(left) == bool(BMAD[kind][0])


def test_bmad_without_valid_divides_test_by_patient(tmp_path):
    source = write_bmad(tmp_path / "source", "Brain")
    shutil.rmtree(source / "valid")
    conversion, counts = run(source, tmp_path)
    assert counts == (1, 2, 10, 8)
    assert "normal images of valid come from train: 1" in conversion.notes


def test_normal_images_of_tested_patients_stay_out_of_valid(tmp_path):
    source = write_bmad(tmp_path / "source", "Brain")
    shutil.rmtree(source / "valid")
    for number in range(3, 8):  # the patients of test/Ungood
        paint(source / "train" / "good" / "img" / f"{number:05d}_80.png", 500 + number)
    conversion, counts = run(source, tmp_path)
    assert counts == (2, 2, 10, 8)
    assert any("since their cases are in test: 4" in note for note in conversion.notes)
    assert not any("share cases" in note for note in conversion.notes)


def test_the_benchmark_works_under_its_own_name(tmp_path):
    run(write_bmad(tmp_path / "source", "Brain"), tmp_path, name="Brain")
    assert not (tmp_path / "Brain_AD" / "object.toml").exists()


def test_cases_in_both_given_splits_are_noted(tmp_path):
    source = write_bmad(tmp_path / "source", "Brain")
    folder = source / "valid" / "good" / "img"
    (folder / "00010_60.png").rename(folder / "00015_80.png")
    conversion, _ = run(source, tmp_path)
    assert "the dataset's own splits share cases: 1 (00015)" in conversion.notes


def test_what_folders_do_not_say_is_left_out(tmp_path):
    source = write_bmad(tmp_path / "source", "Brain")
    paint(source / "figures" / "overview.png", 1_000)
    paint(source / "train" / "Ungood" / "img" / "x.png", 1_001)
    paint_mask(source / "test" / "good" / "label" / "00013_60.png", 0)
    (source / "test" / "good" / "img" / "scan").write_text("a scan without a suffix")
    (source / "test" / "round").symlink_to(source)
    conversion, _ = run(source, tmp_path)
    assert conversion.notes[:4] == [
        "images in folders that name no split or no state are left out: 1 (figures/overview.png)",
        "abnormal images of train are left out: 1",
        "masks of normal images are left out: 1",
        "files of other types are left out: 1 (test/good/img/scan)",
    ]
    with pytest.raises(UserError, match="has no images below folders such as test/good"):
        convert(request_of(source / "figures", tmp_path / "x", layout="bmad"))


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        ("Test/test_label/Ungood", ("test", 1, True, ())),
        ("TRAIN/hist_DIY/valid/img/good", ("valid", 0, False, ("hist_diy",))),
        ("val/ungood/anomaly_mask", ("valid", 1, True, ())),
        ("broken_mask/x", (None, None, False, ("broken_mask", "x"))),
    ],
)
def test_places_of_folders(folders, found):
    assert place(folders.split("/")) == found


def write_ham(top: Path, folder: str = "HAM10000_images_part_1") -> Path:
    """Write 40 naevi and 20 others of 30 lesions with two images each."""
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number in range(60):
        kind = "nv" if number < 40 else ("mel", "bkl")[number // 2 % 2]
        lines.append(f"HAM_{number // 2:07d},ISIC_{number:07d},{kind},histo,50,male,back")
        paint(top / folder / f"ISIC_{number:07d}.jpg", number)
        paint_mask(top / "segmentations" / f"ISIC_{number:07d}_segmentation.png")
    (top / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")
    return top


def test_ham10000_is_divided_by_lesion(tmp_path):
    conversion, counts = run(write_ham(tmp_path / "source"), tmp_path, name="Skin_HAM10000")
    assert (conversion.layout, counts) == ("ham10000", (8, 4, 32, 16))
    assert conversion.notes[0] == "normal: nv; abnormal: bkl mel"
    assert Counter(p.entry.kind for p in conversion.places if p.split == "valid") == {
        "nv": 8,
        "bkl": 2,
        "mel": 2,
    }
    info = find_object(tmp_path, "Skin_HAM10000")
    names = names_of(tmp_path, "test", "good", "Skin_HAM10000")
    assert sorted(map(len, group_by_case(names, info.cases))) == [2] * 16


def test_the_classes_of_a_study_can_be_chosen(tmp_path):
    source = write_ham(tmp_path / "source")
    conversion, counts = run(source, tmp_path, normal=("mel",), abnormal=("nv",), case_names=False)
    assert counts == (2, 8, 8, 32)
    assert "images of other classes are left out: 10" in conversion.notes
    assert names_of(tmp_path, "valid", "Ungood")[0].startswith("ISIC_")
    with pytest.raises(UserError, match="no class naevus; its classes are nv mel bkl"):
        convert(request_of(source, tmp_path / "x", normal=("naevus",)))
    (source / "HAM10000_images_part_1" / "ISIC_0000003.jpg").unlink()
    with pytest.raises(
        UserError,
        match=r"1 of 60 images of .*metadata.csv are not below .*\(ISIC_0000003\); unpack",
    ):
        convert(request_of(source, tmp_path / "x"))


def write_isic(top: Path, lesions: bool = True) -> Path:
    """Write 20 naevi, 10 melanomas and 10 of a third class; lesions of two images where known."""
    truth = ["image,MEL,NV,BCC,UNK"]
    known = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number in range(40):
        kind = 1 if number < 20 else 0 if number < 30 else 2
        truth.append(f"ISIC_{number:07d}," + ",".join(str(float(i == kind)) for i in range(4)))
        known.append(
            f"ISIC_{number:07d},55.0,back,{f'BCN_{number // 2}' if number > 9 else ''},male"
        )
        paint(top / "ISIC_2019_Training_Input" / f"ISIC_{number:07d}.jpg", number)
    (top / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    if lesions:
        (top / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(known) + "\n")
    return top


def test_isic2019_is_divided_by_lesion_where_it_is_known(tmp_path):
    conversion, counts = run(write_isic(tmp_path / "source"), tmp_path)
    assert (conversion.layout, counts) == ("isic2019", (4, 4, 16, 16))
    assert conversion.notes[0] == "normal: NV; abnormal: BCC MEL"
    sides = defaultdict(set)
    for row in rows_of(tmp_path):
        sides[row["case"] or row["image"]].add(row["image"].split("/")[0])
    assert len(sides) == 10 + 15
    assert all(len(side) == 1 for side in sides.values())


def test_isic2019_without_lesions_says_so(tmp_path):
    source = write_isic(tmp_path / "source", lesions=False)
    conversion, _ = run(source / "ISIC_2019_Training_GroundTruth.csv", tmp_path)
    assert any("lesions with several images are not known" in note for note in conversion.notes)
    truth = source / "ISIC_2019_Training_GroundTruth.csv"
    truth.write_text(truth.read_text().replace("0.0,1.0,0.0,0.0", "1.0,1.0,0.0,0.0", 1))
    with pytest.raises(UserError, match="1 x image without exactly one class: 'ISIC_0000000'"):
        convert(request_of(source, tmp_path / "x"))


def test_layouts_are_recognised(table, tmp_path):
    assert find_layout(write_csv(tmp_path / "source", table)) == "csv"
    assert find_layout(tmp_path / "source") == "csv"
    assert find_layout(write_mvtec(tmp_path / "m", masks=False)) == "mvtec"
    for number, kind in enumerate(BMAD):
        assert find_layout(write_bmad(tmp_path / f"b{number}", kind)) == "bmad"
    assert find_layout(write_ham(tmp_path / "h")) == "ham10000"
    assert find_layout(tmp_path / "h" / "HAM10000_metadata.csv") == "ham10000"
    assert find_layout(write_isic(tmp_path / "i")) == "isic2019"


# where it is written


def test_an_existing_folder_is_kept_without_overwrite(tmp_path):
    source = write_mvtec(tmp_path / "source")
    data = tmp_path / "data"
    target = data / "Thyroid_AD"
    target.mkdir(parents=True)
    (target / "mine").write_text("kept")
    with pytest.raises(UserError, match=r"Thyroid_AD exists; pass --overwrite"):
        convert(request_of(source, data))
    assert [path.name for path in data.iterdir()] == ["Thyroid_AD"]
    assert (target / "mine").read_text() == "kept"
    run(source, data, overwrite=True)
    assert not (target / "mine").exists()
    assert [path.name for path in data.iterdir()] == ["Thyroid_AD"]


def test_a_folder_is_never_its_own_source(tmp_path):
    source = write_bmad(tmp_path / "Thyroid_AD", "Brain")
    for inside in (source, source / "test"):
        with pytest.raises(UserError, match=r"is in .*Thyroid_AD, which is to be written"):
            convert(request_of(inside, tmp_path, overwrite=True))
    assert (source / "test" / "good" / "img").is_dir()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    source = write_mvtec(tmp_path / "source")
    data = tmp_path / "data"
    run(source, data)
    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    calls = count()
    copy = shutil.copyfile

    def fail(*arguments):
        if next(calls) == 20:
            raise OSError(28, "No space left on device")
        return copy(*arguments)

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(
        UserError, match=r"cannot be written \(No space left on device\); free some"
    ):
        convert(request_of(source, data, overwrite=True, seed=2))
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before


def test_a_folder_that_cannot_be_moved_leaves_the_earlier_one(tmp_path, monkeypatch):
    source = write_mvtec(tmp_path / "source")
    data = tmp_path / "data"
    run(source, data)
    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    rename = Path.rename

    def fail(path, target):
        if path.parent.suffix == ".part":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="Input/output error"):
        convert(request_of(source, data, overwrite=True, seed=2))
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before


def test_links_instead_of_copies(tmp_path, monkeypatch):
    source = write_mvtec(tmp_path / "source")
    run(source, tmp_path / "hard", link=True)
    for row in rows_of(tmp_path / "hard"):
        assert Path(row["source"]).samefile(tmp_path / "hard" / "Thyroid_AD" / row["image"])

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run(source, tmp_path / "soft", link=True)
    image = tmp_path / "soft" / "Thyroid_AD" / rows_of(tmp_path / "soft")[0]["image"]
    assert image.is_symlink()
    assert image.resolve().is_relative_to(source)


# splits


@pytest.mark.parametrize("seed", range(40))
def test_cases_stay_together_and_labels_are_balanced(seed):
    """Cases of 1 to 4 images of one label; a share that can be reached within one image."""
    generator = random.Random(seed)
    entries = []
    for case in range(generator.randint(12, 60)):
        label = int(generator.random() < 0.4) if case > 3 else case % 2
        entries += [
            Entry(Path(f"{case}_{n}.png"), label, case=str(case))
            for n in range(generator.choice((1, 1, 2, 3, 4)))
        ]
    generator.shuffle(entries)
    share = generator.choice((0.1, 0.2, 0.3, 0.5))
    groups = [entry.case for entry in entries]
    sides, _ = split_sides(entries, groups, share, seed)
    assert set(sides) == set(SPLITS)
    assert len(set(zip(groups, sides, strict=True))) == len(set(groups))
    for label in (0, 1):
        of_label = [side for side, e in zip(sides, entries, strict=True) if e.label == label]
        target = max(share * len(of_label), 1)
        assert abs(of_label.count("valid") - target) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_single_images_are_divided_within_one_of_every_class(seed):
    generator = random.Random(seed)
    kinds = [(kind, int(kind != "a")) for kind in "abcd" for _ in range(generator.randint(3, 30))]
    entries = [Entry(Path(f"{n}.png"), label, kind=k) for n, (k, label) in enumerate(kinds)]
    share = generator.uniform(0.05, 0.6)
    sides, _ = split_sides(entries, range(len(entries)), share, seed)
    for kind in "abcd":
        of_kind = [side for side, e in zip(sides, entries, strict=True) if e.kind == kind]
        assert abs(of_kind.count("valid") - share * len(of_kind)) <= 1.5
    for label in (0, 1):
        of_label = [side for side, e in zip(sides, entries, strict=True) if e.label == label]
        assert of_label.count("valid") == max(1, int(share * len(of_label) + 0.5))


@pytest.mark.parametrize("seed", range(20))
def test_cases_of_both_labels_stay_together(seed):
    """Patients with normal and abnormal slices, as in Liver: ten of 20 to 60."""
    generator = random.Random(seed)
    entries = [
        Entry(Path(f"{case}_{n}.png"), label, case=str(case))
        for case in range(10)
        for label in (0, 1)
        for n in range(generator.randint(10, 30))
    ]
    groups = [entry.case for entry in entries]
    sides, _ = split_sides(entries, groups, 0.2, seed)
    assert len(set(zip(groups, sides, strict=True))) == 10
    # the best of all 1,022 choices
    counts = Counter((int(e.case), e.label) for e in entries)
    totals = [sum(counts[case, label] for case in range(10)) for label in (0, 1)]
    targets = [int(0.2 * total + 0.5) for total in totals]

    def miss(chosen: set[int]) -> int:
        return sum(abs(sum(counts[c, i] for c in chosen) - targets[i]) for i in (0, 1))

    best = min(miss({c for c in range(10) if code >> c & 1}) for code in range(1, 1023))
    mine = {int(e.case) for side, e in zip(sides, entries, strict=True) if side == "valid"}
    assert miss(mine) <= best + 6  # a local search


def test_shares_are_whole_numbers():
    assert apportion([10], 0.2) == [2]
    assert apportion([5, 10], 0.2) == [1, 2]
    assert apportion([1, 1, 1], 0.01) == [1, 0, 0]  # never none
    assert apportion([2], 0.99) == [1]  # and never all
    assert sum(apportion([7, 7, 7], 0.5)) == 11


def test_images_of_the_same_content_stay_together(tmp_path):
    """The same picture under two names would be in valid and in test."""
    for number in range(20):
        paint(tmp_path / "source" / f"{number}.png", number // 2)
    rows = [{"image": f"{n}.png", "label": int(n >= 10)} for n in range(20)]
    conversion, _ = run(write_csv(tmp_path / "source", rows), tmp_path)  # no error of `check`
    assert len(conversion.places) == 20
    assert unite(["a", "", "a", "b", ""], [1, 2, 3, 2, 4]) in (
        [0, 1, 0, 1, 4],
        [2, 3, 2, 3, 4],
    )


def test_too_few_cases_are_refused():
    entries = [Entry(Path(f"1_{n}.png"), n % 2, case="1") for n in range(10)]
    with pytest.raises(UserError, match=r"no .* images for .*or pass --cases no"):
        split_sides(entries, ["1"] * 10, 0.2, 1)


# names and cases


def entries_of(*names: str, label: int = 0) -> list[Entry]:
    return [Entry(Path(name), label) for name in names]


def test_names_are_clean_and_unique():
    entries = entries_of("a/x 1.png", "b/x_1.jpg", "b/.y.png", "b/Z.png", "c/z.png")
    entries.append(Entry(Path("c/z.png"), 0, kind="k"))
    names = unique_names(entries, ["here"] * 5 + ["there"])
    assert names == ["a-x_1.png", "b-x_1.jpg", "y.png", "b-Z.png", "c-z.png", "z.png"]
    twice = unique_names(entries_of("a/x.png", "d/a/x.png", "d/a/x.tif"), [0, 0, 0])
    assert twice == ["a-x.png", "a-xx2.png", "a-xx2x3.tif"]


@pytest.mark.parametrize(
    ("names", "rule", "cases"),
    [
        (["01_1.png", "01_2.png", "02_1.png"], "auto", ["01", "01", "02"]),
        (["01_1.png", "01_2.png", "02_1.png"], "no", ["", "", ""]),
        (["cyst_1.png", "cyst_2.png", "scar_1.png"], "auto", ["", "", ""]),  # classes
        (["01_1.png", "01_2.png", "01_3.png"], "auto", ["", "", ""]),  # one series
        (["1a.png", "1b.png", "x.png"], r"(?P<case>\d+).", ["1", "1", ""]),
    ],
)
def test_cases_of_names(names, rule, cases):
    assert entry_cases(entries_of(*names), rule) == cases


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match="matches no file name, such as a"):
        entry_cases(entries_of("x/a.png"), r"(?P<case>\d+)")


@pytest.mark.parametrize(
    ("names", "cases", "rule", "pattern"),
    [
        (["01_1.png", "01_2.png", "02_1.png"], ["01", "01", "02"], "auto", ""),
        (["01_1.png", "01_2.png"], ["01", "01"], "auto", r"(?P<case>.+)[_\-]\d+"),
        (["b_1.png", "b_2.png", "c_1.png"], ["", "", ""], "auto", r"(?P<case>(?!))"),
        (["1.png", "2.png", "3.png"], ["", "", ""], "auto", ""),
        (["1a.png", "1b.png", "2a.png"], ["1", "1", "2"], r"(?P<case>\d)\w", r"(?P<case>\d)\w"),
    ],
)
def test_the_pattern_that_reads_the_cases_is_found(names, cases, rule, pattern):
    places = [("valid", 0)] * len(names)
    assert carry_cases(names, places, cases, rule, prefix=True) == (names, pattern)


def test_cases_are_put_before_names_that_do_not_show_them():
    names = ["a--1.png", "b.png", "c.png", "d.png"]
    cases = ["P 1", "P 1", "P/1", ""]
    places = [("valid", 0)] * 4
    carried, pattern = carry_cases(names, places, cases, "auto", prefix=True)
    assert carried == ["P-1--a-1.png", "P-1--b.png", "P-1x--c.png", "d.png"]
    assert gives_back(carried, places, cases, pattern)
    assert carry_cases(names, places, cases, "auto", prefix=False) == (names, None)


def test_the_command_says_what_it_did(table, tmp_path, capsys):
    path = write_csv(tmp_path / "source", table)
    argv = ["convert", str(path), "--obj", "Thyroid", "--data_path", str(tmp_path / "data")]
    assert main([*argv, "--noun", "thyroid ultrasound", "--valid", "0.3"]) == [
        tmp_path / "data" / "Thyroid_AD"
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "layout csv: 30 images, 10 masks",
        "valid: 6 normal + 3 abnormal images",
        "test: 14 normal + 7 abnormal images",
    ]
    assert lines[-2].startswith("check it with: python prepare_data.py check --obj Thyroid")
    assert lines[-1] == str(tmp_path / "data" / "Thyroid_AD")
    with pytest.raises(UserError, match="exists; pass --overwrite"):
        main(argv)
    for flags in ("--cases x", "--valid 0", "--valid 1", "--layout visa", "--obj a/b"):
        with pytest.raises(UserError, match=flags.split()[0]):
            main([*argv, *flags.split()])

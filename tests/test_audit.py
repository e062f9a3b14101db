"""Every kind of finding, each in a folder that has exactly that fault."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.catalog import BENCHMARK, CATALOG, MASK_RULES
from dataset.layout import LABELS, SPLITS
from dataset.pixels import read_pixels
from errors import UserError
from preparation.audit import check_objects, write_report
from preparation.audit_files import Task, content_digest, look, look_at_all, look_at_mask
from preparation.audit_rules import PUBLISHED
from prepare_data import main

COUNT = 4  # images of each split and state
SHAPE = (12, 10)  # height, width
GOOD = "valid/good/img"
BAD = "test/Ungood/img"
MASK = "test/Ungood/anomaly_mask"
NOWHERE = "valid/good/anomaly_mask/ (anomaly_mask is a link that leads nowhere)"
NO_FOLDER = "valid/good/anomaly_mask/ (a file, not a folder)"


def noise(seed: int, shape: tuple[int, ...] = (*SHAPE, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape, np.uint8)


def lesion(value: int = 255) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 3:7] = value
    return mask


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_object(data: Path, name: str = "Organ", masks: bool = True) -> Path:
    """Write a clean folder of an object and return it."""
    folder = data / f"{name}_AD"
    for number, split in enumerate(SPLITS):
        for state, label in LABELS.items():
            for index in range(COUNT):
                save(
                    folder / split / state / "img" / f"{index}.png", noise_of(number, label, index)
                )
                if label and masks:
                    save(folder / split / state / "anomaly_mask" / f"{index}.png", lesion())
    return folder


def noise_of(split: int, label: int, index: int) -> np.ndarray:
    return noise(100 * split + 10 * label + index)


@pytest.fixture
def organ(tmp_path):
    """Return a clean folder of an object with masks; its shot list is in `lists`."""
    (tmp_path / "lists" / "Organ").mkdir(parents=True)
    folder = write_object(tmp_path / "data")
    write_list(folder, "n-0: 0.png 1.png\na-0: 2.png 3.png\n")
    return folder


def write_list(organ: Path, text: str, name: str = "2-shot.txt") -> None:
    (organ.parent.parent / "lists" / "Organ" / name).write_text(text)


def check(organ: Path, **options):
    """Return the report about one object."""
    lists = organ.parent.parent / "lists"
    name = organ.name.removesuffix("_AD")
    return check_objects(organ.parent, [name], lists, **options).objects[0]


def kinds(report) -> list[tuple[str, str]]:
    return [(finding.level, finding.kind) for finding in report.findings]


def test_a_clean_folder_has_no_findings(organ):
    report = check(organ)
    assert report.findings == []
    assert [(row.split, row.state, row.images, row.masks) for row in report.rows] == [
        ("valid", "good", 4, 0),
        ("valid", "Ungood", 4, 4),
        ("test", "good", 4, 0),
        ("test", "Ungood", 4, 4),
    ]
    assert {(row.size, row.mode) for row in report.rows} == {("10 x 12", "RGB")}


def test_the_demo_has_no_errors(demo_root):
    report = check_objects(demo_root / "data", None, demo_root / "fewshot_seed")
    assert len(report.objects) == len(list((demo_root / "data").glob("*_AD")))
    assert report.status == 0
    found = {kind for each in report.objects for kind in kinds(each)}
    assert found == {("warning", "published_counts"), ("warning", "size"), ("note", "mask_greys")}


# faults: each changes a clean folder


def remove(path: str):
    return lambda organ: (organ / path).unlink()


def clear(path: str):
    return lambda organ: shutil.rmtree(organ / path)


def put(path: str, values: np.ndarray):
    return lambda organ: save(organ / path, values)


def text(path: str, content: str = "text"):
    return lambda organ: (organ / path).write_text(content)


def shot_list(content: str, name: str = "2-shot.txt"):
    return lambda organ: write_list(organ, content, name)


def link(path: str):
    return lambda organ: (organ / path).symlink_to("nowhere")


def copy(source: str, target: str):
    def fault(organ):
        (organ / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(organ / source, organ / target)

    return fault


def cut(path: str):
    def fault(organ):
        content = (organ / path).read_bytes()
        (organ / path).write_bytes(content[: len(content) * 3 // 5])

    return fault


def stack(path: str):
    def fault(organ):
        frames = [Image.fromarray(noise(seed)) for seed in (1, 2)]
        frames[0].save(organ / path, save_all=True, append_images=frames[1:])

    return fault


def rewrite(folder: str, change):
    """Save every image below a folder anew, as `change` of its values."""

    def fault(organ):
        for path in sorted((organ / folder).rglob("img/*.png")):
            with Image.open(path) as image:
                values = change(np.asarray(image))
            save(path, values)

    return fault


def both(*faults):
    return lambda organ: [fault(organ) for fault in faults]


def wide(values: np.ndarray) -> np.ndarray:
    """Return grey values of 16 bit from 0 to 4095."""
    grey = values[..., 0].astype(np.uint16) * 16
    grey[0, :2] = 0, 4095
    return grey


FAULTS = {  # level, kind, a part of the text, files
    "unusable object.toml": (
        text("object.toml", "nuon = 'x'"),
        ("error", "settings", "unknown key 'nuon'", ()),
    ),
    "nested images": (
        copy(f"{GOOD}/0.png", f"{GOOD}/more/x.png"),
        ("error", "nested", "1 subfolder with images in it; move", (f"{GOOD}/more",)),
    ),
    "broken link": (
        link(f"{GOOD}/9.png"),
        ("error", "broken_link", "leads nowhere", (f"{GOOD}/9.png",)),
    ),
    "broken link of a folder": (
        link("valid/good/anomaly_mask"),
        ("error", "folder", "1 folder that cannot be listed; replace", (NOWHERE,)),
    ),
    "file instead of a folder": (
        text("valid/good/anomaly_mask"),
        ("error", "folder", "replace or remove it", (NO_FOLDER,)),
    ),
    "other type": (
        text(f"{GOOD}/a.nii"),
        ("warning", "other_files", "1 file of another type, never read", (f"{GOOD}/a.nii",)),
    ),
    "other type of a mask": (
        text(f"{MASK}/a.npy"),
        ("warning", "other_files", "read are .png", (f"{MASK}/a.npy",)),
    ),
    "hidden file": (
        text(f"{GOOD}/.DS_Store"),
        ("note", "hidden", "hidden files, never read: 1", ()),
    ),
    "folder outside the layout": (
        copy(f"{GOOD}/0.png", "train/good/x.png"),
        ("warning", "outside", "never read; prepare_data.py convert", ("train/",)),
    ),
    "image outside the layout": (
        copy(f"{GOOD}/0.png", "test/good/x.png"),
        ("warning", "outside", "1 folder or image", ("test/good/x.png",)),
    ),
    "no normal test images": (
        clear("test/good"),
        ("error", "missing_label", "no images in test/good/img; AUROC needs", ()),
    ),
    "no abnormal images of valid": (
        both(clear("valid/Ungood"), lambda organ: shutil.rmtree(organ.parent.parent / "lists")),
        ("warning", "missing_label", "no images in valid/Ungood/img; few-shot", ()),
    ),
    "no valid": (
        both(clear("valid"), lambda organ: shutil.rmtree(organ.parent.parent / "lists")),
        ("warning", "missing_label", "valid/good/img and valid/Ungood/img", ()),
    ),
    "no mask": (
        remove(f"{MASK}/1.png"),
        ("error", "mask_missing", "1 abnormal image without a mask", (f"{BAD}/1.png",)),
    ),
    "no image": (
        copy(f"{MASK}/1.png", f"{MASK}/7.png"),
        ("warning", "mask_orphan", "1 mask without an image", (f"{MASK}/7.png",)),
    ),
    "mask of a normal image": (
        put("test/good/anomaly_mask/0.png", lesion()),
        ("error", "mask_on_normal", "marks something", ("test/good/anomaly_mask/0.png",)),
    ),
    "empty mask of a normal image": (
        put("test/good/anomaly_mask/0.png", lesion(0)),
        ("note", "mask_of_normal", "never read", ("test/good/anomaly_mask/0.png",)),
    ),
    "mask of another shape": (
        put(f"{MASK}/0.png", lesion().T.copy()),
        ("error", "mask_shape", "another shape than the image", (f"{MASK}/0.png",)),
    ),
    "mask of another size": (
        put(f"{MASK}/0.png", lesion().repeat(2, 0).repeat(2, 1)),
        ("warning", "mask_size", "another size than the image", (f"{MASK}/0.png",)),
    ),
    "empty mask": (
        put(f"{MASK}/0.png", lesion(0)),
        ("warning", "mask_empty", "marks nothing", (f"{MASK}/0.png",)),
    ),
    "mask that cannot be read": (
        cut(f"{MASK}/0.png"),
        ("error", "mask_unreadable", "is not a readable image", (f"{MASK}/0.png",)),
    ),
    "truncated image": (
        cut(f"{GOOD}/2.png"),
        ("error", "unreadable", "the first is not a readable image", (f"{GOOD}/2.png",)),
    ),
    "text with the name of an image": (
        text(f"{GOOD}/2.png"),
        ("error", "unreadable", "its content is none of PNG, JPEG", (f"{GOOD}/2.png",)),
    ),
    "several pages": (
        stack(f"{GOOD}/8.tif"),
        ("error", "pages", "of several images (pages, frames)", (f"{GOOD}/8.tif",)),
    ),
    "odd size": (
        put(f"{GOOD}/8.png", noise(8, (9, 9, 3))),
        ("warning", "size", "than the 10 x 12 of the other 16", (f"{GOOD}/8.png",)),
    ),
    "odd mode": (
        put(f"{GOOD}/8.png", noise(8, SHAPE)),
        ("warning", "mode", "than the RGB of the other 16", (f"{GOOD}/8.png",)),
    ),
    "image of one value": (
        put(f"{GOOD}/8.png", np.full((*SHAPE, 3), 7, np.uint8)),
        ("warning", "constant", "of one value", (f"{GOOD}/8.png",)),
    ),
    "wide images": (
        rewrite("", wide),
        ("note", "wide", "values 0 to 4095, scaled to 8 bit by each image's own range", None),
    ),
    "an image in valid and test": (
        copy("test/good/img/1.png", f"{GOOD}/8.png"),
        (
            "error",
            "duplicate_splits",
            "in valid and in test",
            (f"{GOOD}/8.png = test/good/img/1.png",),
        ),
    ),
    "an image that is normal and abnormal": (
        both(copy("test/good/img/1.png", f"{BAD}/8.png"), copy(f"{MASK}/1.png", f"{MASK}/8.png")),
        ("error", "duplicate_labels", "both normal", (f"test/good/img/1.png = {BAD}/8.png",)),
    ),
    "an image twice": (
        copy(f"{GOOD}/1.png", f"{GOOD}/8.png"),
        ("warning", "duplicate", "more than once", (f"{GOOD}/1.png = {GOOD}/8.png",)),
    ),
    "white space": (
        put(f"{GOOD}/a b.png", noise(8)),
        ("warning", "white_space", "white space in the name", (f"{GOOD}/a b.png",)),
    ),
    "absent name in a list": (
        shot_list("n-0: 0.png x.png\na-0: 0.png 1.png\n"),
        ("error", "list_absent", "n-0 that valid/good/img does not have", ("x.png",)),
    ),
    "wrong number in a list": (
        shot_list("n-0: 0.png\na-0: 0.png 1.png\n"),
        ("error", "list_count", "n-0 names 1 image instead of 2", ()),
    ),
    "one name twice in a list": (
        shot_list("n-0: 0.png 0.png\na-0: 0.png 1.png\n"),
        ("error", "list_twice", "n-0 names an image twice", ()),
    ),
    "half a draw": (
        shot_list("n-0: 0.png 1.png\na-0: 0.png 1.png\nn-1: 0.png 1.png\n"),
        ("error", "list_draw", "1 line missing in", ("a-1",)),
    ),
    "a draw twice": (
        shot_list("n-0: 0.png 1.png\na-0: 0.png 1.png\nn-0: 0.png 1.png\n"),
        ("error", "list_line", "a second line 'n-0'", ()),
    ),
    "another line": (
        shot_list("n-0: 0.png 1.png\n\na-0: 0.png 1.png\nshots\n"),
        ("warning", "list_line", "line 4 is not of the form", ()),
    ),
    "an empty list": (shot_list(""), ("error", "list_line", "has no draw", ())),
    "another name of a list": (
        shot_list("n-0: 0.png\n", "two.txt"),
        ("note", "list_name", "never read", ()),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_the_only_finding(organ, fault):
    change, (level, kind, part, files) = FAULTS[fault]
    change(organ)
    (finding,) = check(organ).findings
    assert (finding.level, finding.kind) == (level, kind)
    assert part in finding.text
    if files is not None:
        assert finding.files == files
    assert "\n" not in finding.line()


def test_the_published_counts_are_the_catalogs():
    for info in BENCHMARK:
        published = PUBLISHED[info.name]
        assert published.test is None or sum(published.test) == info.test_images
        assert published.valid is None or sum(published.valid) == info.valid_images
    assert {info.name for info in BENCHMARK} == PUBLISHED.keys()


def test_counts_and_sizes_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    folder = write_object(tmp_path / "data", "Brain")
    counts, more, size = [f for f in check(folder).findings if f.level == "warning"]
    assert counts.text == (
        "valid has 8 images (4 normal + 4 abnormal); "
        "published were 83 images (39 normal + 44 abnormal)"
    )
    assert "3,715 images (640 normal + 3,075 abnormal)" in more.text
    assert "16 of 10 x 12" in size.text
    assert len(size.files) == 16
    monkeypatch.setitem(PUBLISHED, "Brain", PUBLISHED["Brain"]._replace(size=(12, 10)))
    assert "size" not in {kind for _, kind in kinds(check(folder))}, "either orientation fits"


@pytest.mark.parametrize(
    ("greys", "level", "part"),
    [
        ((255,), "note", "masks are two-valued: grey 0 255"),
        ((58, 122, 255), "note", "the benchmark's scheme of three greys"),
        ((122, 255), "note", "greys 0 122 255, in between"),
        ((60, 255), "warning", "60 count as background (mask rule half"),
    ],
)
def test_the_two_schemes_of_brain_masks_are_told_apart(tmp_path, greys, level, part):
    folder = write_object(tmp_path / "data", "Brain")
    mask = lesion()
    for column, grey in enumerate(greys):
        mask[2, 3 + column] = grey
    save(folder / MASK / "0.png", mask)
    (finding,) = [f for f in check(folder).findings if f.kind == "mask_greys"]
    assert finding.level == level
    assert part in finding.text


def test_greys_in_between_are_measured(organ):
    mask = lesion()
    mask[2, 3] = 40
    mask[2, 4] = 200
    save(organ / MASK / "0.png", mask)
    (finding,) = check(organ).findings
    assert (finding.level, finding.kind) == ("warning", "mask_greys")
    # 2 of 8 masks of 120 pixels, each with 24 marked ones
    assert finding.text == (
        "1 mask with grey values in between, neither 0 nor 255; of all masks greys 0 40 200 255, "
        "in between 0.21% of the pixels and 1.0% of the marked ones; 40 count as background "
        "(mask rule half: foreground is above 127); half drops 0.5% of the pixels that any counts"
    )
    (organ / "object.toml").write_text("mask_rule = 'any'")
    (finding,) = check(organ).findings
    assert finding.text.endswith(
        "all count as foreground (mask rule any); half drops 0.5% of the pixels that any counts"
    )


def test_what_half_drops_is_counted_in_wide_masks_too(organ):
    wide = np.zeros(SHAPE, np.uint16)
    wide[2, 2:6] = (1, 20_000, 40_000, 65_535)
    Image.fromarray(wide).save(organ / MASK / "0.png")
    for rule in MASK_RULES:
        facts = look_at_mask(organ / MASK / "0.png", rule)
        assert (facts.above, facts.dropped) == (4, 2)


def test_masks_of_labels_are_an_error_unless_the_rule_reads_them(organ):
    for split in SPLITS:
        for index in range(COUNT):
            save(organ / split / "Ungood" / "anomaly_mask" / f"{index}.png", lesion(1))
    (finding,) = check(organ).findings
    assert (finding.level, finding.kind, len(finding.files)) == ("error", "mask_labels", 8)
    assert "grey values 0 1, foreground is above 127" in finding.text
    assert "mask_rule = 'any' in object.toml (--mask_rule any)" in finding.text
    (organ / "object.toml").write_text("mask_rule = 'any'")
    assert check(organ).findings == []


def test_marks_in_another_channel_are_an_error(organ):
    mask = Image.new("RGBA", SHAPE[::-1])
    mask.putalpha(Image.fromarray(lesion()))
    mask.save(organ / MASK / "0.png")
    assert kinds(check(organ)) == [("error", "mask_labels")]
    (organ / "object.toml").write_text("mask_rule = 'any'")
    (finding,) = check(organ).findings
    assert "the marks are in another channel" in finding.text


def test_marks_too_small_to_be_seen_are_noted(tmp_path):
    dot = np.zeros((2_400, 2_400), np.uint8)
    dot[1, 1] = 255
    save(tmp_path / "dot.png", dot)
    facts = look(Task(tmp_path / "dot.png", "half"))
    assert (facts.foreground, facts.vanishes, facts.empty) == (1, True, False)
    save(tmp_path / "lesion.png", lesion())
    assert not look(Task(tmp_path / "lesion.png", "half")).vanishes


def test_masks_that_are_never_read_are_noted(organ):
    (organ / "object.toml").write_text("masks = false")
    save(organ / MASK / "0.png", lesion(1))
    (finding,) = check(organ).findings
    assert (finding.level, finding.kind, len(finding.files)) == ("note", "mask_unused", 8)


def test_a_property_that_gives_the_label_away_is_a_warning(organ):
    for split in SPLITS:
        rewrite(f"{split}/Ungood", lambda values: values[..., 0])(organ)
    assert kinds(check(organ)) == [("warning", "telling"), ("note", "mode")]
    for split in SPLITS:
        rewrite(f"{split}/good", lambda values: values[..., 0])(organ)
    assert check(organ).findings == []


def test_images_of_8_bit_among_wide_ones_are_a_warning(organ):
    rewrite("valid/good", wide)(organ)
    report = check(organ)
    assert kinds(report) == [("warning", "mode"), ("warning", "mixed_depths"), ("note", "wide")]
    (organ / "object.toml").write_text("intensity = '0:4095'")
    assert "from 0 (black) to 4095 (white) (--intensity 0:4095)" in check(organ).findings[-1].text


def test_the_same_picture_is_found_in_any_format(tmp_path):
    grey = noise(3, SHAPE)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(grey).save(tmp_path / f"grey.{suffix}")
        Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / f"rgb.{suffix}")
    Image.fromarray(grey).save(tmp_path / "small.png", compress_level=9)
    digests = {look(Task(path, "")).digest for path in tmp_path.iterdir()}
    expected = hashlib.sha256(b"(12, 10) |u1 False " + grey.tobytes()).digest()
    assert digests == {expected}
    for other in (grey.T.copy(), grey.astype(np.uint16) * 256, grey ^ 1):
        save(tmp_path / "other.png", other)
        assert content_digest(read_pixels(tmp_path / "other.png")) != expected


def cases_of(organ: Path, names: dict[str, list[str]], pattern: str = ""):
    """Rename the images of two folders and return the note about cases."""
    for folder, new in names.items():
        for index, name in enumerate(new):
            (organ / folder / f"{index}.png").rename(organ / folder / f"{name}.png")
    (organ.parent.parent / "lists" / "Organ" / "2-shot.txt").unlink()
    if pattern:
        (organ / "object.toml").write_text(f"cases = {json.dumps(pattern)}")
    return check(organ).findings


def test_cases_in_both_splits_are_noted(organ):
    names = {
        GOOD: ["p1_1", "p1_2", "p2_1", "p3_1"],
        "test/good/img": ["p2_7", "p3_9", "p4_1", "p4_2"],
    }
    (finding,) = cases_of(organ, names)
    assert (finding.level, finding.kind, finding.files) == ("note", "cases", ("p2", "p3"))
    assert finding.text.startswith("cases (patients): 3 in valid, 3 in test, 2 in both")


def test_cases_are_read_by_the_objects_pattern(organ):
    names = {GOOD: ["1-a", "1-b", "2-a", "3-a"], "test/good/img": ["1-c", "4-a", "5-a", "5-b"]}
    (finding,) = cases_of(organ, names, r"(?P<case>\d+)-(?P<slice>.)")
    assert finding.text.startswith("cases (patients): 3 in valid, 3 in test, 1 in both")


def test_numbered_names_are_no_cases(organ):
    names = {GOOD: [f"good_{n}" for n in range(4)], "test/good/img": [f"good_{n}" for n in "abcd"]}
    assert cases_of(organ, names) == []


def test_test_images_beside_shots_are_counted(organ):
    names = {
        GOOD: ["p1_10", "p1_20", "p2_1", "p3_1"],
        "test/good/img": ["p1_12", "p1_13", "p2_4", "p4_2"],
    }
    for folder, new in names.items():
        for index, name in enumerate(new):
            (organ / folder / f"{index}.png").rename(organ / folder / f"{name}.png")
    path = organ.parent.parent / "lists/Organ/2-shot.txt"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("n-")]
    path.write_text("\n".join(["n-0: p1_10.png p1_20.png", *kept]) + "\n")
    findings = {f.kind: f for f in check(organ).findings}
    assert findings["shot_cases"].files == (
        "test/good/img/p1_12.png",
        "test/good/img/p1_13.png",
    )
    assert findings["shot_neighbours"].files == ("test/good/img/p1_12.png",)  # p1_10 is 2 away
    assert "at most 2 slices away" in findings["shot_neighbours"].text


def test_a_cases_table_that_cannot_be_used_is_an_error(organ):
    (organ / "cases.csv").write_text("file;case\n")
    findings = {f.kind: f for f in check(organ).findings}
    assert findings["cases_table"].level == "error"
    assert "has no column file case" in findings["cases_table"].text


def test_lines_of_a_cases_table_that_no_image_has_are_a_warning(organ):
    """They were passed over, and the case was guessed from the name."""
    image = next((organ / "test" / "good" / "img").iterdir()).name
    (organ / "cases.csv").write_text(
        f"file,case\ntest/good/img/{image},1\n/test/good/img/{image},1\ntest/Good/x.png,2\ny.png,3\n"
    )
    findings = {f.kind: f for f in check(organ).findings}
    assert findings["cases_unused"].level == "warning"
    names = ("/test/good/img/" + image, "test/Good/x.png", "y.png")
    assert findings["cases_unused"].files == names


def test_missing_lists_are_noted_for_the_benchmark_only(tmp_path):
    found = kinds(check(write_object(tmp_path / "data", "Chest", masks=False)))
    assert ("note", "list_missing") in found
    assert kinds(check(write_object(tmp_path / "data", "Skin", masks=False))) == []
    assert not CATALOG["Skin"].benchmark


def test_a_list_that_is_not_text_is_an_error(organ):
    (organ.parent.parent / "lists" / "Organ" / "2-shot.txt").write_bytes(b"\xff\xfe\x00")
    assert kinds(check(organ)) == [("error", "list_unreadable")]


def test_published_lists_may_hold_tabs(organ):
    write_list(organ, "a-0:\t0.png\t1.png\t\n\tn-0:\t2.png\t3.png")
    assert check(organ).findings == []


def test_several_threads_find_the_same(organ):
    tasks = [Task(path, "") for path in sorted(organ.rglob("img/*.png"))]
    tasks += [Task(path, "half") for path in sorted(organ.rglob("anomaly_mask/*.png"))]
    alone = look_at_all(tasks, 1)
    seen = []
    assert look_at_all(tasks, 2, lambda: seen.append(1)) == alone
    assert len(seen) == len(tasks)


def test_objects_that_are_not_there_are_refused(organ, tmp_path):
    with pytest.raises(UserError, match=r"no folder .*Thyroid_AD"):
        check_objects(organ.parent, ["Organ", "Thyroid"], tmp_path)
    with pytest.raises(UserError, match=r"no folder .*/<object>_AD"):
        check_objects(tmp_path / "lists", None, tmp_path)


def test_the_report_is_a_table_and_json(organ, tmp_path, capsys):
    (organ / MASK / "1.png").unlink()
    save(organ / GOOD / "8.png", noise(8, (9, 9, 3)))
    report = check_objects(organ.parent, None, tmp_path / "lists")
    assert report.status == 1
    write_report(report, str(tmp_path / "report.json"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["object", "split", "state", "images", "masks", "size", "mode"]
    assert lines[2].split() == ["Organ", "valid", "good", "5", "0", "2", "sizes", "RGB"]
    assert lines[7] == "errors"
    assert lines[8] == (
        "  Organ: 1 abnormal image without a mask; a mask has its image's file name, "
        "in anomaly_mask (test/Ungood/img/1.png)"
    )
    assert lines[10] == "warnings"
    assert lines[-1] == "1 error, 1 warning, 0 notes; 24 files decoded"
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["counts"] == {"error": 1, "warning": 1, "note": 0}
    assert content["objects"]["Organ"]["findings"][0]["kind"] == "mask_missing"
    assert content["objects"]["Organ"]["rows"][0]["images"] == 5
    write_report(report, "-")
    assert json.loads(capsys.readouterr().out) == content
    with pytest.raises(UserError, match=r"--json .*absent/x.json cannot be written"):
        write_report(report, str(tmp_path / "absent" / "x.json"))


def test_long_lists_of_names_are_cut(organ, tmp_path, capsys):
    shutil.rmtree(organ / MASK)
    shutil.rmtree(organ / "valid/Ungood/anomaly_mask")
    (organ / "object.toml").write_text("masks = true")
    write_report(check_objects(organ.parent, None, tmp_path / "lists"), None)
    assert "valid/Ungood/img/3.png and 4 more)" in capsys.readouterr().out


def test_the_command_ends_with_1_on_errors(organ, tmp_path, capsys):
    argv = ["check", "--data_path", str(organ.parent), "--fewshot_path", str(tmp_path / "lists")]
    assert main(argv) == []
    assert "0 errors, 0 warnings, 0 notes; 24 files decoded" in capsys.readouterr().out
    copy(f"{GOOD}/1.png", f"{GOOD}/8.png")(organ)
    main([*argv, "--obj", "Organ", "--jobs", "2"])  # a warning
    capsys.readouterr()
    (organ / MASK / "1.png").unlink()
    with pytest.raises(SystemExit) as end:
        main([*argv, "--json", "-"])
    assert end.value.code == 1
    assert json.loads(capsys.readouterr().out)["counts"]["error"] == 1
    with pytest.raises(UserError, match=r"no folder .*Nothing_AD"):
        main([*argv, "--obj", "Nothing"])


def test_a_folder_that_may_not_be_read_is_an_error(organ, monkeypatch):
    """Root may read everything, so listing is made to fail instead of changing permissions."""
    listed = Path.iterdir

    def deny(path):
        if path.parent.name == "good" and path.parent.parent.name == "valid":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", deny)
    (first, *_) = check(organ).findings
    assert (first.kind, first.files) == ("folder", (f"{GOOD}/ (Permission denied)",))

"""Finding what there is to score."""

from pathlib import Path

import numpy as np
from PIL import Image

from prediction.discovery import IMAGE, VOLUME, find, kind_of, suffix_of


def write(path: Path) -> Path:
    """Write a small image, whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, "PNG")
    return path


def names(*paths: Path, out: Path = Path("nowhere")) -> list[str]:
    return [source.name for source in find(paths, out).sources]


def test_a_folder_gives_its_files_sorted(tmp_path):
    for name in ("b.png", "a.PNG", "sub/c.jpg", ".hidden.png", ".git/d.png"):
        write(tmp_path / name)
    assert names(tmp_path) == ["a.PNG", "b.png", "sub/c.jpg"]


def test_files_of_other_types_are_counted_and_named(tmp_path):
    for name in ("a.png", "notes.txt", "more.txt", "table.csv", "README"):
        write(tmp_path / name)
    found = find([tmp_path], tmp_path / "out")
    assert len(found.sources) == 1
    assert found.others == {".txt": 2, ".csv": 1, "without a suffix": 1}
    assert found.describe_others().startswith("4 files of other types left out: 2 .txt")


def test_the_output_folder_is_left_out(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "out/overlays/a.png")
    assert names(tmp_path, out=tmp_path / "out") == ["a.png"]


def test_what_is_given_twice_is_found_once(tmp_path):
    image = write(tmp_path / "x/a.png")
    for given in ((image, image), (tmp_path / "x", tmp_path / "y/../x")):
        found = find(given, tmp_path / "out")
        assert [source.name for source in found.sources] == ["a.png"]
        assert (
            found.describe_others() == "1 of the files and folders are given twice and scored once"
        )
    found = find((image, write(tmp_path / "b.png"), tmp_path / "x"), tmp_path / "out")
    assert [source.name for source in found.sources] == ["a.png", "b.png"]
    assert found.repeated == 1


def test_folders_with_results_are_left_out(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "out/overlays/a.png.jpg")
    (tmp_path / "out/run.json").write_text('{"program": "predict.py"}')
    write(tmp_path / "other/b.png")
    (tmp_path / "other/run.json").write_text('{"program": "scanner"}')
    found = find([tmp_path], tmp_path / "out/out2")
    assert [source.name for source in found.sources] == ["a.png", "other/b.png"]
    assert found.results == [tmp_path / "out"]
    assert "1 folders with results of predict.py left out" in found.describe_others()


def test_several_inputs_have_names_of_their_own(tmp_path):
    for folder in ("x/images", "y/images"):
        write(tmp_path / folder / "a.png")
    single = write(tmp_path / "z/a.png")
    found = names(tmp_path / "x/images", tmp_path / "y/images", single)
    assert found == ["x_images/a.png", "y_images/a.png", "a.png"]
    other = write(tmp_path / "z/b.png")
    assert names(single, other) == ["a.png", "b.png"]


def test_a_named_file_is_a_source_whatever_its_type(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (source,) = find([tmp_path / "notes.txt"], tmp_path / "out").sources
    assert source.kind == IMAGE


def test_kinds(tmp_path):
    assert kind_of(tmp_path / "a.nii.gz") == VOLUME
    assert kind_of(tmp_path / "a.hdr") == "part"
    assert kind_of(tmp_path / "a.dcm") == "dicom"
    assert suffix_of("A.NII.GZ") == ".nii.gz"
    export = tmp_path / "IM000001"  # without a suffix, as in DICOM exports
    export.write_bytes(bytes(128) + b"DICM")
    assert kind_of(export) == "dicom"
    export.write_bytes(bytes(140))
    assert kind_of(export) == ""


def test_jobs_share_every_source_once(tmp_path):
    for number in range(40):
        write(tmp_path / f"{number}.png")
    sources = find([tmp_path], tmp_path / "out").sources
    shares = [[s.name for s in sources if s.belongs(k, 3)] for k in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(s.name for s in sources)
    assert all(shares)

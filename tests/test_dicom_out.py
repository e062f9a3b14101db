"""DICOM objects made of scans, read back with highdicom and pydicom: they lie on their source."""

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from errors import UserError
from scans.dicom_out import write_dicom
from tests.scans_made import FRAMES, enhanced_file, plain_file, series_files

ROWS = 100
COLUMNS = 128


@pytest.fixture
def results():
    """Return maps, regions and overlays of five frames, those of frames 0 and 3 empty."""
    rng = np.random.default_rng(0)
    maps = rng.normal(0.4, 0.2, (FRAMES, ROWS, COLUMNS)).astype(np.float32)
    above = maps > 0.6
    above[[0, 3]] = False
    overlays = rng.integers(0, 256, (FRAMES, ROWS, COLUMNS, 3), np.uint8)
    return maps, above, overlays


def write(folder, sources, results, kinds=("seg", "pm", "sc"), **more):
    return write_dicom(folder, kinds, sources, *results, text="Brain, score 0.5", **more)


def lies_on(made, source) -> None:
    """Check that two volumes of highdicom have one geometry; the order of frames may differ."""
    matched = made.match_geometry(source)
    np.testing.assert_allclose(matched.affine, source.affine, atol=1e-4)
    assert matched.frame_of_reference_uid == source.frame_of_reference_uid


@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_objects_lie_on_an_oblique_scan(tmp_path, results, kind):
    if kind == "series":
        sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
        scan = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in sources])
    else:
        sources = [enhanced_file(tmp_path / "ct.dcm", ROWS, COLUMNS)]
        scan = highdicom.imread(sources[0]).get_volume()
    assert np.abs(scan.affine[:3, :3]).min() > 0.01  # oblique indeed
    maps, above, overlays = results
    files = write(tmp_path / "out", sources, results)
    assert [path.name for path in files] == [
        "seg.dcm",
        "pm.dcm",
        *(f"sc_{n:04d}.dcm" for n in range(1, FRAMES + 1)),
    ]

    expected = scan.with_array(np.zeros(scan.shape))  # frames may run the other way
    order = [int(n) for n in scan.array[:, 0, 0]]  # each frame's number is its first pixel
    seg = highdicom.seg.segread(files[0])
    assert seg.NumberOfFrames == FRAMES  # empty ones are kept
    found = seg.get_volume(combine_segments=True)
    lies_on(found, expected)
    assert np.array_equal(found.match_geometry(expected).array, above[order])

    pm = highdicom.imread(files[1])
    found = pm.get_volume(apply_real_world_transform=True)
    lies_on(found, expected)
    assert np.array_equal(found.match_geometry(expected).array.astype(np.float32), maps[order])

    captures = [pydicom.dcmread(path) for path in files[2:]]
    for number, capture in enumerate(captures):
        corner = overlays[number].copy()
        corner[-30:, :90] = capture.pixel_array[-30:, :90]  # where the mark is
        assert np.array_equal(capture.pixel_array, corner)
        assert not np.array_equal(capture.pixel_array, overlays[number])
    pixels = [capture.pixel_array[..., 0] for capture in captures]
    for capture, values in zip(captures, pixels, strict=True):
        capture.PhotometricInterpretation = "MONOCHROME2"
        capture.SamplesPerPixel = 1
        capture.PixelData = values.tobytes()
    lies_on(highdicom.get_volume_from_series(captures), expected)


def test_frames_refer_to_their_source(tmp_path, results):
    sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
    headers = [pydicom.dcmread(path) for path in sources]
    files = write(tmp_path / "out", sources, results)
    at = {
        tuple(np.round(np.array(h.ImagePositionPatient, float), 3)): h.SOPInstanceUID
        for h in headers
    }
    for path in files[:2]:
        made = pydicom.dcmread(path)
        assert len(made.PerFrameFunctionalGroupsSequence) == FRAMES
        for group in made.PerFrameFunctionalGroupsSequence:
            position = group.PlanePositionSequence[0].ImagePositionPatient
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            there = tuple(np.round(np.array(position, float), 3))
            assert source.ReferencedSOPInstanceUID == at[there]
        shared = made.SharedFunctionalGroupsSequence[0]
        assert [float(x) for x in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.7, 0.9]
    for path, header in zip(files[2:], headers, strict=True):
        made = pydicom.dcmread(path)
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            place = [float(x) for x in made[keyword].value]
            assert place == pytest.approx([float(x) for x in header[keyword].value], abs=1e-5)
        assert made.PatientOrientation == ["L", "P"]


def test_uids_are_new_and_marks_are_there(tmp_path, results):
    sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
    header = pydicom.dcmread(sources[0])
    made = [
        pydicom.dcmread(path)
        for folder in ("one", "two")
        for path in write(tmp_path / folder, sources, results)
    ]
    uids = [new.SOPInstanceUID for new in made]
    assert len(set(uids)) == len(made) == 2 * (2 + FRAMES)
    assert len({new.SeriesInstanceUID for new in made}) == 6
    old = {pydicom.dcmread(path).SOPInstanceUID for path in sources}
    assert not old & set(uids)
    for new in made:
        assert new.StudyInstanceUID == header.StudyInstanceUID
        assert new.SeriesInstanceUID != header.SeriesInstanceUID
        assert new.PatientID == header.PatientID
        assert "RESEARCH ONLY" in new.SeriesDescription
        assert new.ContentQualification == "RESEARCH"
        assert new.Manufacturer == "MVFA"
        said = new.get("ContentDescription") or new.ImageComments
        assert said == "Brain, score 0.5. Research only, not for clinical use."
    assert "RESEARCH ONLY" in made[0].SegmentSequence[0].SegmentLabel
    assert {new.SOPClassUID.name for new in made} == {
        "Segmentation Storage",
        "Parametric Map Storage",
        "Secondary Capture Image Storage",
    }


def test_frames_of_one_file_in_another_order(tmp_path, results):
    """Maps come in the order of the slices; a file's frames need not."""
    source = enhanced_file(tmp_path / "ct.dcm", ROWS, COLUMNS)
    maps, above, overlays = (values[:3] for values in results)
    frames = (4, 1, 2)
    files = write(tmp_path / "out", [source], (maps, above, overlays), frames=frames)
    assert [path.name for path in files[2:]] == ["sc_0005.dcm", "sc_0002.dcm", "sc_0003.dcm"]
    pm = pydicom.dcmread(files[1])
    seg = pydicom.dcmread(files[0])
    for new, pixels, expected in (
        (pm, pm.pixel_array, maps),
        (seg, seg.pixel_array, above),
    ):
        for group, values in zip(new.PerFrameFunctionalGroupsSequence, pixels, strict=True):
            of = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber - 1
            where = expected[frames.index(of)] if of in frames else np.zeros_like(maps[0])
            assert np.array_equal(values, where)


def test_values_that_were_not_scored_are_0(tmp_path, results):
    maps, above, overlays = results
    maps[2] = np.nan
    sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
    (file,) = write(tmp_path / "out", sources, (maps, above, overlays), kinds=("pm",))
    values = pydicom.dcmread(file).pixel_array
    assert np.isfinite(values).all()
    assert sum(not frame.any() for frame in values) == 1


def test_a_flat_map_is_written(tmp_path, results):
    maps, above, overlays = results
    sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
    files = write(tmp_path / "out", sources, (0 * maps, above & False, overlays), ("seg", "pm"))
    assert not any(pydicom.dcmread(file).pixel_array.any() for file in files)


def test_a_single_image_of_a_series(tmp_path, results):
    one = [values[1:2] for values in results]
    source = series_files(tmp_path / "ct", ROWS, COLUMNS)[1]
    files = write(tmp_path / "out", [source], one)
    assert [path.name for path in files] == ["seg.dcm", "pm.dcm", "sc_0001.dcm"]
    scan = highdicom.get_volume_from_series([pydicom.dcmread(source)])
    for path, expected in zip(files[:2], (one[1], one[0]), strict=True):
        made = highdicom.imread(path)
        lies_on(made.get_volume(), scan)
        assert np.array_equal(np.squeeze(made.pixel_array), expected[0])


def test_a_single_image_without_a_position(tmp_path, results):
    """An ultrasound image has a segmentation that refers to it, but no parametric map."""
    one = [values[1:2] for values in results]
    source = plain_file(tmp_path / "us.dcm", ROWS, COLUMNS, UltrasoundImageStorage)
    header = pydicom.dcmread(source)
    seg, sc = write(tmp_path / "out", [source], one, kinds=("seg", "sc"))
    made = highdicom.seg.segread(seg)
    assert np.array_equal(np.squeeze(made.pixel_array), one[1][0])
    referred = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert referred.ReferencedSOPInstanceUID == header.SOPInstanceUID
    capture = pydicom.dcmread(sc)
    assert np.array_equal(capture.pixel_array[:50], one[2][0, :50])
    assert "ImagePositionPatient" not in capture
    assert not capture.PatientOrientation
    with pytest.raises(UserError, match=r"no parametric map can be made \(it has no position"):
        write(tmp_path / "out", [source], one, kinds=("seg", "pm"))


def test_what_cannot_be_made_is_named_and_the_rest_is_written(tmp_path, results):
    storage = UltrasoundMultiFrameImageStorage
    source = plain_file(tmp_path / "us.dcm", ROWS, COLUMNS, storage, frames=FRAMES)
    with pytest.raises(UserError) as caught:
        write(tmp_path / "out", [source], results)
    message = str(caught.value)
    assert "\n" not in message
    assert "us.dcm: no segmentation (SEG) can be made" in message
    assert "no parametric map can be made" in message
    assert "the others were written" in message
    assert len(list((tmp_path / "out").iterdir())) == FRAMES
    with pytest.raises(UserError, match="try --dicom_out sc"):
        write(tmp_path / "none", [source], results, kinds=("seg",))
    assert not list(tmp_path.glob("none/*"))


def test_headers_may_leave_out_what_may_be_empty(tmp_path, results):
    path = plain_file(tmp_path / "sc.dcm", ROWS, COLUMNS, SecondaryCaptureImageStorage)
    header = pydicom.dcmread(path)
    for keyword in ("PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate"):
        if keyword in header:
            delattr(header, keyword)
    header.PatientSex = "W"
    header.save_as(path)
    one = [values[:1] for values in results]
    files = write(tmp_path / "out", [path], one, kinds=("seg", "sc"))
    assert not pydicom.dcmread(files[0]).PatientSex
    del header.StudyInstanceUID
    header.save_as(path)
    with pytest.raises(UserError, match="has no StudyInstanceUID"):
        write(tmp_path / "out", [path], one)


def test_another_number_of_maps_is_a_bug(tmp_path, results):
    sources = series_files(tmp_path / "ct", ROWS, COLUMNS)
    with pytest.raises(ValueError, match="5 frames"):
        write(tmp_path / "out", sources, [values[:4] for values in results])
    with pytest.raises(ValueError, match="frames of"):
        write(tmp_path / "out", sources, [values[:, :50] for values in results])

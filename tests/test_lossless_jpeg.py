"""Lossless JPEG is decoded in another process, which may break down."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dataset import lossless_jpeg
from dataset.dicom import read_frames
from dataset.dicom_frames import only_gdcm
from errors import UserError

WHOLE = Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))


def test_values_are_those_of_gdcm_in_this_process():
    dataset = pydicom.dcmread(WHOLE)
    assert only_gdcm(dataset)
    lossless_jpeg.stop()
    np.testing.assert_array_equal(read_frames(WHOLE)[0].values, dataset.pixel_array)
    assert os.getpid() in lossless_jpeg.RUNNING


def test_other_files_are_decoded_here():
    for name in ("MR_small_RLE.dcm", "CT_small.dcm", "JPEG2000.dcm", "image_dfl.dcm"):
        assert not only_gdcm(pydicom.dcmread(get_testdata_file(name, download=False)))


def test_a_breakdown_costs_one_file():
    read_frames(WHOLE)
    process = lossless_jpeg.RUNNING[os.getpid()]
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="GDCM broke down"):
        read_frames(WHOLE)
    assert read_frames(WHOLE)[0].values.shape == (100, 100, 3)


def test_errors_of_the_other_process_are_told():
    dataset = pydicom.dcmread(WHOLE)
    with pytest.raises(ValueError, match="Unable to decode"):
        lossless_jpeg.decode(b"no JPEG", dataset)
    assert os.getpid() in lossless_jpeg.RUNNING


def test_damaged_files_are_refused_or_read_without_a_word(tmp_path, capfd):
    """Some of them end the other process, or make it print."""
    rng = np.random.default_rng(0)
    whole = np.frombuffer(WHOLE.read_bytes(), np.uint8)
    start = whole.tobytes().index(b"\xff\xd8\xff")
    messages = []
    for trial in range(40):
        data = whole.copy()
        data[rng.integers(start, start + 400, 6)] = rng.integers(0, 256, 6)
        path = tmp_path / f"{trial}.dcm"
        path.write_bytes(data.tobytes())
        try:
            read_frames(path)
        except UserError as error:
            messages.append(str(error))
    assert messages
    assert all("\n" not in message for message in messages)
    assert capfd.readouterr() == ("", "")
    assert read_frames(WHOLE)[0].values.shape == (100, 100, 3)

"""Files are written whole, folders are checked, and upsampling is torch's own."""

import pytest
import torch
import torch.nn.functional as F

from errors import UserError
from tests.conftest import TOLERANCE
from utils import set_seed, upsample, writable, write_whole


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("patches", "side"), [(3, 10), (4, 4), (5, 3)])
def test_upsampling_is_bilinear_with_aligned_corners(patches, side, dtype):
    values = torch.randn(2, 3, patches**2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    square = values.unflatten(-1, (patches, patches))
    expected = F.interpolate(square, size=(side, side), mode="bilinear", align_corners=True)
    torch.testing.assert_close(upsample(values, side), expected, **TOLERANCE[dtype])


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_whole(path, lambda partial: partial.write_text("first"))

    def fail(partial) -> None:
        partial.write_text("sec")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file/deep is not a directory and cannot be crea"):
        writable(tmp_path / "file" / "deep", "--out")
    writable(tmp_path / "new" / "deep", "--out")
    assert (tmp_path / "new" / "deep").is_dir()


def test_a_seed_decides_all_random_numbers():
    first = set_seed(3)
    numbers = (torch.rand(2), torch.rand(2, generator=first))
    second = set_seed(3)
    torch.testing.assert_close(torch.rand(2), numbers[0], rtol=0, atol=0)
    torch.testing.assert_close(torch.rand(2, generator=second), numbers[1], rtol=0, atol=0)

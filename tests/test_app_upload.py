"""Uploads: several files as one, zip files that want out, and sizes that are too large."""

import io
import stat
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from errors import UserError
from prediction.app_upload import MEGABYTE, Limits, Uploads, check_size, collect, unpack
from prediction.discovery import IMAGE, SERIES, VOLUME
from tests.scans_made import FRAMES, series_files

LIMITS = Limits(uploaded=MEGABYTE, unpacked=2 * MEGABYTE, values=1000)


def png(side: int = 8, value: int = 100) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), value).save(file, "PNG")
    return file.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def info(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "unpacked"
    path.mkdir()
    return path


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_files_of_a_series_become_one_source(tmp_path, folder):
    files = series_files(tmp_path / "series", 6, 8)
    scattered = [
        write(tmp_path / f"upload{k}" / p.name, p.read_bytes()) for k, p in enumerate(files)
    ]
    single = write(tmp_path / "other/photo.png", png())
    sources = collect([single, *scattered], folder, LIMITS)
    assert [source.kind for source in sources] == [SERIES, IMAGE]
    assert len(sources[0].files) == FRAMES
    assert sources[1].name == "photo.png"


def test_files_of_one_name_are_kept_apart(tmp_path, folder):
    files = [write(tmp_path / f"{k}/scan.png", png(value=k)) for k in range(3)]
    sources = collect(files, folder, LIMITS)
    values = {np.asarray(Image.open(source.paths[0]))[0, 0] for source in sources}
    assert values == {0, 1, 2}
    assert len({source.name for source in sources}) == 3


def test_a_zip_file_is_unpacked_without_what_is_hidden(tmp_path, folder):
    archive = zipped(
        tmp_path / "study.zip",
        ("a/1.png", png()),
        ("b\\2.png", png()),
        ("__MACOSX/a/._1.png", png()),
        (".hidden/3.png", png()),
        ("a/.DS_Store", b"x"),
    )
    assert [s.name for s in collect([archive], folder, LIMITS)] == [
        "study/a/1.png",
        "study/b/2.png",
    ]
    assert below(folder) == ["study/a/1.png", "study/b/2.png"]


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("../out.png", stat.S_IFREG | 0o644, "leads out of it"),
        ("a/../../out.png", stat.S_IFREG | 0o644, "leads out of it"),
        ("..\\out.png", stat.S_IFREG | 0o644, "leads out of it"),
        ("/tmp/out.png", stat.S_IFREG | 0o644, "leads out of it"),
        ("C:\\out.png", stat.S_IFREG | 0o644, "leads out of it"),
        ("", stat.S_IFREG | 0o644, "a file without a name"),
        ("x/" * 32 + "a.png", stat.S_IFREG | 0o644, "more than 32 folders deep"),
        ("link.png", stat.S_IFLNK | 0o777, "a link or a device"),
        ("pipe.png", stat.S_IFIFO | 0o644, "a link or a device"),
    ],
)
def test_a_zip_file_that_is_not_plain_is_refused(tmp_path, folder, name, mode, words):
    archive = zipped(tmp_path / "bad.zip", (info(name, mode), b"/etc/passwd"))
    with pytest.raises(UserError, match=words):
        collect([archive], folder, LIMITS)
    assert below(folder) == []
    assert not (tmp_path / "out.png").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path, folder):
    archive = zipped(tmp_path / "bomb.zip", *((f"{k}.png", bytes(MEGABYTE)) for k in range(50)))
    assert archive.stat().st_size < MEGABYTE
    with pytest.raises(
        UserError, match=r"^bomb\.zip unpacks to 50\.0 MB; at most 2\.0 are allowed: "
    ):
        collect([archive], folder, LIMITS)
    assert below(folder) == []


def test_several_zip_files_share_the_limit(tmp_path, folder):
    archives = [
        zipped(tmp_path / f"{k}.zip", *((f"{i}.png", bytes(MEGABYTE // 2)) for i in range(3)))
        for k in range(2)
    ]
    with pytest.raises(UserError, match=r"^1\.zip unpacks to 1\.5 MB; at most 0\.5 are allowed"):
        collect(archives, folder, LIMITS)


def test_a_zip_file_that_lies_about_its_sizes_is_refused(tmp_path):
    """Sizes of both headers say 10 bytes; the content has 5 million."""
    archive = zipped(tmp_path / "liar.zip", ("a.png", bytes(5_000_000)))
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 10)))
    with pytest.raises(UserError, match=r"liar\.zip cannot be unpacked"):
        unpack(archive, tmp_path / "x", 2 * MEGABYTE)
    assert sum(p.stat().st_size for p in (tmp_path / "x").rglob("*.png")) <= 10


def test_methods_that_inflate_without_a_bound_are_refused(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", png())
    with pytest.raises(UserError, match=r"^small\.zip is not compressed by deflate"):
        collect([tmp_path / "small.zip"], folder, LIMITS)
    assert below(folder) == []


def test_encrypted_and_broken_zip_files_are_refused(tmp_path, folder):
    archive = zipped(tmp_path / "secret.zip", ("a.png", png()))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        collect([archive], folder, LIMITS)
    broken = write(tmp_path / "broken.zip", b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="cannot be unpacked"):
        collect([broken], folder, LIMITS)


def test_more_than_the_limit_and_nothing_to_show_are_refused(tmp_path, folder):
    large = write(tmp_path / "large.png", bytes(MEGABYTE + 1))
    with pytest.raises(UserError, match=r"1 MB were uploaded; at most 1 .* --max_mb"):
        collect([large], folder, LIMITS)
    text = write(tmp_path / "letter.docx", b"words")
    with pytest.raises(UserError, match=r"nothing to show \(1 files of other types .* 1 \.docx"):
        collect([text], folder, LIMITS)


def test_sizes_are_bounded_before_anything_is_read(tmp_path, folder, monkeypatch):
    nibabel.save(
        nibabel.Nifti1Image(np.ones((11, 10, 10), np.uint8), np.eye(4)), tmp_path / "a.nii"
    )
    frames = series_files(tmp_path / "series", 20, 20)
    sources = collect([tmp_path / "a.nii", *frames], folder, LIMITS)
    assert {source.kind for source in sources} == {VOLUME, SERIES}
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", None)
    for source in sources:
        with pytest.raises(UserError, match="at most 1000 are shown"):
            check_size(source, LIMITS)
        check_size(source, replace(LIMITS, values=2000))


def test_uploads_are_removed_when_others_come(tmp_path):
    files = [write(tmp_path / f"{k}/{k}.png", png()) for k in range(3)]
    uploads = Uploads(LIMITS)
    uploads.replace(files[:2])
    inside = [source.paths[0] for source in uploads.sources]
    assert len(inside) == 2
    uploads.replace(files[1:])  # one is deleted from the list, another added
    assert [path.exists() for path in files] == [False, True, True]
    assert not any(path.exists() for path in inside)
    inside = [source.paths[0] for source in uploads.sources]
    uploads.forget()
    assert not any(path.exists() for path in [*files, *inside])
    assert uploads.sources == []


def test_a_refused_upload_leaves_no_copy_and_no_path_in_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uploads = Uploads(LIMITS)
    with pytest.raises(UserError) as failure:
        uploads.replace([write(tmp_path / "in/x.txt", b"x")])
    assert str(tmp_path) not in str(failure.value)
    assert list(tmp_path.glob("upload-*")) == []

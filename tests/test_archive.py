"""Archives of strangers: what is refused, what is written, and that nothing is left half done."""

import io
import stat
import tarfile
import zipfile

import pytest

from errors import UserError
from preparation import archive
from preparation.archive import find_folder, unpacked


def make_tar(path, entries, mode="w:gz"):
    """Write a tar archive: bytes are files, None a folder, a TarInfo is taken as it is."""
    with tarfile.open(path, mode) as file:
        for name, content in entries.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            entry = name if name.endswith("/") else zipfile.ZipInfo(name)  # the name may be ""
            file.writestr(entry, content or b"", zipfile.ZIP_DEFLATED)
    return path


MAKERS = {"a.tar.gz": make_tar, "a.zip": make_zip}


def entry(kind, target):
    """Return a link or device of a tar archive."""
    info = tarfile.TarInfo("Brain_AD/link")
    info.type = kind
    info.linkname = target
    return info


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", MAKERS)
def test_files_are_written_and_hidden_ones_left_out(tmp_path, name):
    files = {
        "Brain_AD/": None,
        "./Brain_AD/test/a.png": b"a",
        "Brain_AD/test/._a.png": b"macOS",
        "__MACOSX/Brain_AD/a.png": b"macOS",
        "Brain_AD/.DS_Store": b"macOS",
    }
    path = MAKERS[name](tmp_path / name, files)
    with unpacked(path, tmp_path / "data") as folder:
        assert content(folder) == {"Brain_AD/test/a.png": b"a"}
        assert find_folder(folder, "Brain_AD", path) == folder / "Brain_AD"
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "entry_name",
    ["", "/etc/passwd", "../up.png", "a/../../up.png", "C:\\up.png", "a\\..\\up", "a\nb"],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name, entry_name):
    path = MAKERS[name](tmp_path / name, {"Brain_AD/a.png": b"a", entry_name: b"b"})
    with pytest.raises(UserError, match="written elsewhere") as caught, unpacked(path, tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", MAKERS)
def test_names_of_too_many_folders_are_refused(tmp_path, name):
    path = MAKERS[name](tmp_path / name, {f"{'x/' * 31}y": b"a"})
    with unpacked(path, tmp_path):
        pass
    path = MAKERS[name](tmp_path / name, {f"{'x/' * 32}y": b"a"})
    with pytest.raises(UserError, match="more than 32 folders deep"), unpacked(path, tmp_path):
        pass


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    path = make_tar(tmp_path / "a.tar", {"x": entry(kind, "/etc/passwd")}, "w")
    with pytest.raises(UserError, match="a link or device; refused"), unpacked(path, tmp_path):
        pass


def test_a_link_of_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="a link or device"), unpacked(tmp_path / "a.zip", tmp_path):
        pass


@pytest.mark.parametrize("name", MAKERS)
def test_what_grows_without_bound_is_refused(tmp_path, name, monkeypatch):
    path = MAKERS[name](tmp_path / name, {"a": bytes(3_000_000)})
    with unpacked(path, tmp_path / "data"):
        pass
    monkeypatch.setattr(archive, "ALLOWANCE", 1_000)
    with pytest.raises(UserError, match="100 times its size"), unpacked(path, tmp_path / "data"):
        pass
    assert not list((tmp_path / "data").iterdir())


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    path = make_tar(tmp_path / "a.tar.gz", {f"{i}": b"" for i in range(4)})
    with pytest.raises(UserError, match="more than 3 files"), unpacked(path, tmp_path):
        pass


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_that_occurs_twice_is_refused(tmp_path, name):
    path = MAKERS[name](tmp_path / name, {"a/b": b"1", "./a/b": b"2"})
    with pytest.raises(UserError, match="twice"), unpacked(path, tmp_path):
        pass


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_a_cut_archive_is_one_line(tmp_path, name, share):
    path = MAKERS[name](tmp_path / name, {f"{i}": bytes(range(256)) * i for i in range(40)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError) as caught, unpacked(path, tmp_path / "data"):
        pass
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").iterdir())


def test_other_files_are_one_line(tmp_path):
    for name, data in {"page": b"<html>no archive</html>", "empty": b""}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UserError, match="neither a tar nor a zip"), unpacked(path, tmp_path):
            pass
    path = make_tar(tmp_path / "none.tar", {"folder": None}, "w")
    with pytest.raises(UserError, match="holds no files"), unpacked(path, tmp_path):
        pass


def test_a_folder_is_found_one_level_below(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"release/Brain_AD/a": b"a", "release/README": b""})
    with unpacked(path, tmp_path) as folder:
        assert find_folder(folder, "Brain_AD", path).parent.name == "release"
        with pytest.raises(UserError, match="should hold a folder Liver_AD; it holds release"):
            find_folder(folder, "Liver_AD", path)


def test_a_folder_of_a_killed_run_is_replaced(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a": b"a"})
    (tmp_path / ".a.zip.unpacked").mkdir()
    (tmp_path / ".a.zip.unpacked/a").write_bytes(b"old")
    with unpacked(path, tmp_path) as folder:
        assert content(folder) == {"a": b"a"}

"""Fetching a file over HTTP from servers that break off, lie, redirect and send pages."""

import hashlib
import socket
from types import SimpleNamespace

import pytest

from errors import UserError
from preparation import transfer
from preparation.transfer import fetch
from tests.file_server import Served, file_server

CONTENT = bytes(range(256)) * 1_200  # several chunks


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(transfer, "WAITS", (0.0, 0.0, 0.0, 0.0))
    with file_server() as files:
        yield files


def arrives(files, path, target):
    """Fetch a file, and return the SHA-256 of what arrived."""
    return hashlib.sha256(fetch(files.url(path), target, "title").read_bytes()).hexdigest()


WHOLE = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_arrives(files, tmp_path):
    files["a.bin"] = Served(CONTENT)
    assert arrives(files, "a.bin", tmp_path / "new/a.bin") == WHOLE
    assert not (tmp_path / "new/a.bin").exists()  # it is checked before it takes its name


@pytest.mark.parametrize("marked", [True, False])
def test_a_break_is_continued_where_it_was(files, tmp_path, marked):
    files["a.bin"] = Served(CONTENT, breaks=[70_001, 12_345, 0], marked=marked)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE
    assert files["a.bin"].asked == ["", "bytes=70001-", "bytes=82346-", "bytes=82346-"]


def test_a_later_run_continues(files, tmp_path):
    files["a.bin"] = Served(CONTENT, breaks=[70_001, *[0] * 9])
    with pytest.raises(UserError) as caught:
        fetch(files.url("a.bin"), tmp_path / "a.bin", "title")
    message = str(caught.value)
    assert "\n" not in message
    assert "broke off" in message
    assert f"70,001 of {len(CONTENT):,} bytes are kept" in message
    files["a.bin"].breaks.clear()
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE
    assert files["a.bin"].asked[-1] == "bytes=70001-"


def test_another_content_is_not_appended(files, tmp_path):
    files["a.bin"] = Served(b"x" * 100_000, breaks=[70_001, *[0] * 9])
    with pytest.raises(UserError):
        fetch(files.url("a.bin"), tmp_path / "a.bin", "title")
    files["a.bin"] = Served(CONTENT)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE


def test_another_address_is_not_appended(files, tmp_path):
    files["b.bin"] = Served(b"x" * 100_000, breaks=[70_001, *[0] * 9])
    with pytest.raises(UserError):
        fetch(files.url("b.bin"), tmp_path / "a.bin", "title")
    files["a.bin"] = Served(CONTENT)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE
    assert files["a.bin"].asked == [""]


def test_a_server_without_ranges_starts_again(files, tmp_path):
    files["a.bin"] = Served(CONTENT, breaks=[70_001], ranges=False)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE


def test_a_complete_partial_file_is_accepted(files, tmp_path):
    files["a.bin"] = Served(CONTENT)
    first = fetch(files.url("a.bin"), tmp_path / "a.bin", "title")
    assert fetch(files.url("a.bin"), tmp_path / "a.bin", "title") == first
    assert files["a.bin"].asked == ["", f"bytes={len(CONTENT)}-"]
    assert first.read_bytes() == CONTENT


def test_a_size_that_is_too_large_is_a_break(files, tmp_path):
    files["a.bin"] = Served(CONTENT, stated=len(CONTENT) + 1)
    with pytest.raises(UserError, match=r"kept|removed"):
        fetch(files.url("a.bin"), tmp_path / "a.bin", "title")


def test_a_size_that_is_too_small_cuts_the_file(files, tmp_path):
    """HTTP gives no sign of it; the SHA-256 and the archive do (tests/test_download.py)."""
    files["a.bin"] = Served(CONTENT, stated=1_000)
    assert fetch(files.url("a.bin"), tmp_path / "a.bin", "title").stat().st_size == 1_000


def test_a_file_of_unknown_size_arrives(files, tmp_path):
    files["a.bin"] = Served(CONTENT, sized=False)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE


def test_a_busy_server_is_asked_again(files, tmp_path):
    files["a.bin"] = Served(CONTENT, statuses=[503, 429, 500])
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (Served(b"<html>", kind="text/html; charset=utf-8"), "a web page instead of a file"),
        (Served(b"", statuses=[403]), "access is refused (403"),
        (Served(b"", statuses=[410]), "there is no such file (410"),
        (Served(b"", statuses=[418]), "the server answers 418"),
        (Served(b"", statuses=[503] * 5), "the server answers 503"),
        (Served(b"", redirect="ftp://example.org/a"), "which is no http or https address"),
        (Served(b"", redirect="file:///etc/passwd"), "which is no http or https address"),
        (Served(b"", redirect="a.bin"), "redirected more than 10 times"),
    ],
    ids=["html", "403", "410", "418", "503", "ftp", "file", "loop"],
)
def test_what_is_no_file_is_one_line(files, tmp_path, served, message):
    files["a.bin"] = served
    with pytest.raises(UserError) as caught:
        fetch(files.url("a.bin"), tmp_path / "a.bin", "title")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_redirections_are_followed(files, tmp_path):
    files["a.bin"] = Served(b"", redirect="/b.bin")
    files["b.bin"] = Served(b"", redirect=files.url("c.bin"))
    files["c.bin"] = Served(CONTENT)
    assert arrives(files, "a.bin", tmp_path / "a.bin") == WHOLE


@pytest.mark.usefixtures("files")  # no waiting
def test_no_server_is_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"127\.0\.0\.1 refuses the connection"):
        fetch(f"http://127.0.0.1:{port}/a", tmp_path / "a", "title")


@pytest.mark.parametrize("url", ["ftp://example.org/a", "a.bin", "http://", "http://[::1/a"])
def test_an_odd_address_is_one_line(tmp_path, url):
    with pytest.raises(UserError) as caught:
        fetch(url, tmp_path / "a", "title")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_before(files, tmp_path, monkeypatch):
    files["a.bin"] = Served(CONTENT)
    usage = SimpleNamespace(free=1_000)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"no space for .*307,200 bytes are to come and 1,000 are"):
        fetch(files.url("a.bin"), tmp_path / "a.bin", "title")

"""Downloads from a local server: to their places, recorded, refused; and on to a prediction."""

import csv
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import requests

import calibrate
import predict
import prepare_data
import test_few
import train_few
from dataset.catalog import BENCHMARK
from dataset.layout import LABELS, list_images
from errors import UserError
from preparation import assets, drive, transfer
from preparation.hub import ENDPOINT
from preparation.ledger import RECORD, sole_download
from synthetic.images import write_images, write_shots
from tests.file_server import Served, file_server


def tarred(folder, name=None):
    """Return a tar.gz archive of a folder, as bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as file:
        file.add(folder, name or folder.name)
    return buffer.getvalue()


def zipped(entries):
    """Return a zip archive of bytes by name, as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "WAITS", (0.0, 0.0, 0.0, 0.0))
    with file_server() as files:
        yield files


@pytest.fixture
def brain(demo_root):
    """Return the archive of the demo's Brain images."""
    return tarred(demo_root / "data/Brain_AD")


@pytest.fixture
def download(server, tmp_path):
    """Return a function that runs `prepare_data.py download` with places below tmp_path."""
    places = ("--data_path", "data", "--fewshot_path", "lists", "--ckpt_path", "ckpt")

    def run(*arguments, mirror=True):
        flags = [str(tmp_path / part) if "-" not in part else part for part in places]
        flags += ["--clip_path", str(tmp_path / "weights/clip.pt")]
        if mirror:
            flags += ["--mirror", server.address]
        return prepare_data.main(["download", *map(str, arguments), *flags])

    return run


def refused(download, *arguments, **more) -> str:
    """Return the one line of a download that fails."""
    with pytest.raises(UserError) as caught:
        download(*arguments, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Write Brain images that are enough for all lists, and the lists of every object."""
    root = tmp_path_factory.mktemp("lists")
    for split, count in (("valid", 16), ("test", 4)):
        for state in LABELS:
            write_images(root / "data", "Brain", split, state, count, seed=1, size=60)
    for info in BENCHMARK:
        write_shots(root / "fewshot_seed" / info.name, info.name, 16, assets.SHOTS, seed=1)
    return root


def serve_lists(server, lists):
    for path in lists.glob("fewshot_seed/*/*"):
        server[path.relative_to(lists).as_posix()] = Served(path.read_bytes())


def record(tmp_path):
    return json.loads((tmp_path / "data" / RECORD).read_text())


def test_from_an_empty_folder_to_a_prediction(
    server, download, lists, demo_weights, tmp_path, capsys
):
    """The server breaks off, lies about a size, sends a page and redirects on the way."""
    brain = tarred(lists / "data/Brain_AD")
    serve_lists(server, lists)
    server["fewshot_seed/Brain/2-shot.txt"].kind = "text/html"
    server["Brain.tar.gz"] = Served(brain, stated=9_000)  # too small: the file is cut
    assert "2 of 2 downloads failed (Brain, shots)" in refused(download, "Brain", "shots")
    said = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("failed: Brain:") and "damaged or incomplete" in line for line in said
    )
    assert any(line.startswith("failed: shots:") and "a web page" in line for line in said)
    serve_lists(server, lists)
    server["Brain.tar.gz"] = Served(b"", redirect="/moved/Brain.tar.gz")
    server["moved/Brain.tar.gz"] = Served(brain, breaks=[len(brain) // 2, 100])
    download("Brain", "shots")
    data = tmp_path / "data"
    files = ["--data_path", data, "--fewshot_path", tmp_path / "lists"]
    assert prepare_data.main(["check", "--obj", "Brain", *map(str, files)]) == []  # no errors
    shared = ["--obj", "Brain", *files, "--clip_path", demo_weights, "--img_size", 60]
    shared += ["--shot", 2, "--save_path", tmp_path / "ckpt"]
    trained = train_few.main([*map(str, shared), "--epoch", "1", "--out", str(tmp_path / "train")])
    tested = test_few.main([*map(str, shared), "--out", str(tmp_path / "test")])
    assert tested.image_auroc == trained.image_auroc
    detector = calibrate.main([*map(str, shared), "--out", str(tmp_path / "brain.detector")])
    images = data / "Brain_AD/test/Ungood/img"
    used = ["-i", images, "-o", tmp_path / "out", "--detector", detector]
    predict.main([*map(str, used), "--clip_path", str(demo_weights)])
    with (tmp_path / "out/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list_images(images))
    assert all(row["score"] and row["p_value"] for row in rows)


def test_images_are_unpacked_recorded_and_left_alone(server, download, brain, tmp_path, demo_root):
    server["Brain.tar.gz"] = Served(brain)
    assert download("Brain") == [tmp_path / "data/Brain_AD"]
    for path in (demo_root / "data/Brain_AD").rglob("*.png"):
        copy = tmp_path / "data" / path.relative_to(demo_root / "data")
        assert copy.read_bytes() == path.read_bytes()
    entry = record(tmp_path)["Brain"]
    assert entry["sha256"] == hashlib.sha256(brain).hexdigest()
    assert (entry["size"], entry["url"]) == (len(brain), server.url("Brain.tar.gz"))
    visible = {path.name for path in (tmp_path / "data").iterdir() if path.name[0] != "."}
    assert visible == {"Brain_AD", RECORD}
    assert download("Brain") == []
    assert len(server["Brain.tar.gz"].asked) == 1


def test_archives_are_kept_on_request(server, download, brain, tmp_path):
    server["Brain.tar.gz"] = Served(brain)
    download("Brain", "--keep_archives", "yes")
    assert (tmp_path / "data/Brain.tar.gz").read_bytes() == brain
    assert not list((tmp_path / "data").glob("*.part*"))


def test_another_content_than_before_is_refused(server, download, brain, tmp_path, demo_root):
    server["Brain.tar.gz"] = Served(brain)
    download("Brain")
    (tmp_path / "data/Brain_AD").rename(tmp_path / "old")
    other = tarred(demo_root / "data/Liver_AD", "Brain_AD")
    server["Brain.tar.gz"] = Served(other)
    assert "is not what it was" in refused(download, "Brain")
    assert not (tmp_path / "data/Brain_AD").exists()
    download("Brain", "--accept_new")
    assert record(tmp_path)["Brain"]["sha256"] == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "neither a tar nor a zip archive"),
        (zipped({"Liver_AD/a.png": b"a"}), "should hold a folder Brain_AD; it holds Liver_AD"),
        (zipped({"Brain_AD/../../a.png": b"a"}), "would be written elsewhere"),
    ],
)
def test_wrong_archives_are_one_line(server, download, tmp_path, content, message):
    server["Brain.tar.gz"] = Served(content)
    assert message in refused(download, "Brain")
    assert not (tmp_path / "data/Brain_AD").exists()
    assert not (tmp_path / "data" / RECORD).exists()


def test_weights_need_the_published_hash(server, download, tmp_path, monkeypatch):
    server["ViT-L-14-336px.pt"] = Served(b"other weights")
    message = refused(download, "clip")
    assert "published is 3035c92b3509..." in message
    assert not list((tmp_path / "weights").iterdir())
    weights = b"the weights"
    asset = assets.assets()["clip"]
    sha256 = hashlib.sha256(weights).hexdigest()
    monkeypatch.setitem(assets.assets(), "clip", replace(asset, sha256=sha256))
    server["ViT-L-14-336px.pt"] = Served(weights, breaks=[3])
    assert download("clip") == [tmp_path / "weights/clip.pt"]
    assert (tmp_path / "weights/clip.pt").read_bytes() == weights
    assert download("clip") == []
    (tmp_path / "weights/clip.pt").write_bytes(b"damaged")
    assert "is there and is another file" in refused(download, "clip")


def test_adapters_go_to_their_folder(server, download, tmp_path):
    files = {f"few-shot/{info.name}.pth": info.name.encode() for info in BENCHMARK}
    server["few-shot.zip"] = Served(zipped(files | {"few-shot/notes.txt": b"notes"}))
    (tmp_path / "ckpt/few-shot").mkdir(parents=True)
    (tmp_path / "ckpt/few-shot/Liver.pth").write_bytes(b"my own")
    assert len(download("few-shot")) == 5
    there = {p.name: p.read_bytes() for p in (tmp_path / "ckpt/few-shot").iterdir()}
    expected = {f"{info.name}.pth": info.name.encode() for info in BENCHMARK}
    assert there == expected | {"Liver.pth": b"my own"}
    hashes = record(tmp_path)["few-shot"]["files"]
    assert hashes["Brain.pth"] == hashlib.sha256(b"Brain").hexdigest()
    assert download("few-shot") == []
    server["zero-shot.zip"] = Served(zipped({"a/Brain.pth": b"1", "b/Brain.pth": b"2"}))
    assert "holds Brain.pth twice" in refused(download, "zero-shot")
    server["zero-shot.zip"] = Served(zipped({"a/Heart.pth": b"1"}))
    assert "holds none of Brain.pth" in refused(download, "zero-shot")


def test_shot_lists_are_checked_and_left_alone(server, download, lists, tmp_path):
    serve_lists(server, lists)
    (tmp_path / "lists/Brain").mkdir(parents=True)
    (tmp_path / "lists/Brain/4-shot.txt").write_text("n-0: mine.png\n")
    assert len(download("shots")) == len(BENCHMARK) * len(assets.SHOTS) - 1
    assert (tmp_path / "lists/Brain/4-shot.txt").read_text() == "n-0: mine.png\n"
    assert download("shots") == []
    (tmp_path / "lists/Liver/4-shot.txt").unlink()
    server["fewshot_seed/Liver/4-shot.txt"] = Served(b"404: Not Found")
    assert "is no shot list" in refused(download, "shots", "--accept_new")


def test_files_fetched_by_hand(download, brain, tmp_path):
    folder = tmp_path / "Downloads"
    folder.mkdir()
    (folder / "Brain.tar.gz").write_bytes(brain)
    assert "no file Liver.tar.gz there" in refused(
        download, "Liver", "--from", folder, mirror=False
    )
    download("Brain", "--from", folder, mirror=False)
    assert (tmp_path / "data/Brain_AD").is_dir()
    assert (folder / "Brain.tar.gz").read_bytes() == brain  # the user's own stays
    assert record(tmp_path)["Brain"]["url"] == str(folder / "Brain.tar.gz")
    one = folder / "Brain.tar.gz"
    assert "is one file" in refused(download, "Brain", "Liver", "--from", one, mirror=False)
    assert "two sources" in refused(download, "Brain", "--from", one)
    assert "does not exist" in refused(download, "Brain", "--from", "nowhere", mirror=False)


@pytest.mark.parametrize("name", ["bmad", "bmad-drive"])
def test_pages_are_for_the_browser(download, name):
    message = refused(download, name)
    assert assets.assets()[name].url in message
    assert "prepare_data.py convert" in message


def test_unknown_names_and_a_second_run(download, tmp_path):
    assert "'Heart' cannot be downloaded" in refused(download, "Heart")
    with sole_download(tmp_path / "data"):
        assert "another download into" in refused(download, "Brain")


def test_a_damaged_record_is_one_line(download, tmp_path):
    (tmp_path / "data").mkdir()
    for content in ("[]", "{", '{"Brain": {"url": 1}}', '{"Brain": 3}'):
        (tmp_path / "data" / RECORD).write_text(content)
        assert "cannot be read as a record" in refused(download, "Brain")


def test_all_is_everything_but_what_needs_converting():
    kinds = {asset.kind for asset in assets.choose_assets(["all", "Brain"])}
    assert kinds == {assets.FILE, assets.IMAGES, assets.ADAPTERS, assets.LISTS}
    names = [asset.name for asset in assets.choose_assets(["all"])]
    assert {info.name for info in BENCHMARK} < set(names)
    assert len(names) == len(set(names))


def test_every_google_address_has_its_id():
    for asset in assets.assets().values():
        if "drive.google.com/file" in asset.url:
            places = assets.Places(*map(Path, "abcd"))
            assert len(assets.single_item(asset, places).drive_id) == 33


class TestGoogleDrive:
    """With gdown replaced: what it gives and raises is what its version 6 does."""

    @pytest.fixture
    def gdown(self, monkeypatch):
        from gdown import exceptions

        module = ModuleType("gdown")
        module.exceptions = exceptions
        module.calls = []
        monkeypatch.setitem(sys.modules, "gdown", module)
        return module

    def gives(self, gdown, answer):
        def fake(**arguments):
            gdown.calls.append(arguments)
            if isinstance(answer, Exception):
                raise answer
            Path(arguments["output"]).write_bytes(answer)
            return arguments["output"]

        gdown.download = fake

    def test_an_archive_arrives(self, gdown, download, brain, tmp_path):
        self.gives(gdown, brain)
        download("Brain", mirror=False)
        assert (tmp_path / "data/Brain_AD/test").is_dir()
        assert gdown.calls[0]["id"] == "1YxcjcQqsPdkDO0rqIVHR5IJbqS9EIyoK"
        assert gdown.calls[0]["resume"]
        assert "1YxcjcQqsPdkDO0rqIVHR5IJbqS9EIyoK" in record(tmp_path)["Brain"]["url"]

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("FileURLRetrievalError", "quota used up, consent asked for"),
            ("DownloadError", "the same command continues"),
        ],
    )
    def test_what_gdown_raises_is_one_line(self, gdown, download, kind, message):
        self.gives(gdown, getattr(gdown.exceptions, kind)("many\nlines"))
        line = refused(download, "Brain", mirror=False)
        assert message in line
        assert "prepare_data.py download Brain --from FILE" in line

    def test_a_broken_network_is_one_line(self, gdown, download):
        self.gives(gdown, requests.ConnectionError("no route"))
        assert "did not arrive (no route)" in refused(download, "Brain", mirror=False)

    def test_a_page_is_no_archive(self, gdown, download):
        self.gives(gdown, b"<!DOCTYPE html><html>Sign in</html>")
        assert "neither a tar nor a zip" in refused(download, "Brain", mirror=False)

    def test_gdown_has_the_arguments_that_are_passed(self):
        import inspect

        import gdown

        assert {"id", "output", "quiet", "resume", "timeout", "retries"} <= set(
            inspect.signature(gdown.download).parameters
        )
        assert drive.PAGE.format("x") == "https://drive.google.com/file/d/x/view"


class TestHub:
    """A repository of the Hugging Face hub, as its HTTP interface lists it."""

    REPOSITORY = "Hammadhaideerr/CTTA-AD-Benchmarks"

    @pytest.fixture(autouse=True)
    def endpoint(self, server, monkeypatch):
        monkeypatch.setenv(ENDPOINT, server.address)

    def serve(self, server, files, **changes):
        """Serve a repository of files by name, its list in the hub's form."""
        listed = [{"type": "directory", "path": "Brain", "size": 0}]
        for name, content in files.items():
            server[f"datasets/{self.REPOSITORY}/resolve/main/{name}"] = Served(content)
            entry = {"type": "file", "path": name, "size": len(content)}
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
            listed.append(entry | changes)
        tree = json.dumps(listed).encode()
        server[f"api/datasets/{self.REPOSITORY}/tree/main?recursive=true"] = Served(tree)

    def test_files_arrive(self, server, download, tmp_path):
        files = {"Brain/test/good/1.png": b"one", "Brain/test/bad/1.png": b"two", ".git": b""}
        self.serve(server, files)
        download("ctta", mirror=False)
        folder = tmp_path / "data/ctta"
        assert (folder / "Brain/test/good/1.png").read_bytes() == b"one"
        assert (folder / "Brain/test/bad/1.png").read_bytes() == b"two"
        assert not (folder / ".git").exists()
        download("ctta", mirror=False)
        asked = server[f"datasets/{self.REPOSITORY}/resolve/main/Brain/test/good/1.png"].asked
        assert len(asked) == 1

    def test_other_content_is_refused(self, server, download):
        self.serve(server, {"Brain/1.png": b"one"}, lfs={"oid": "0" * 64})
        assert "published is 000000000000..." in refused(download, "ctta", mirror=False)
        self.serve(server, {"Brain/1.png": b"one"}, size=99)
        assert "3 bytes, published are 99" in refused(download, "ctta", mirror=False)

    @pytest.mark.parametrize("name", ["../up.png", "/etc/passwd", "a\\..\\b"])
    def test_names_that_lead_elsewhere_are_refused(self, server, download, name):
        self.serve(server, {name: b"one"})
        assert "would be written elsewhere" in refused(download, "ctta", mirror=False)

    def test_no_list_is_one_line(self, server, download):
        assert "no list of files" in refused(download, "ctta", mirror=False)
        self.serve(server, {})
        assert "lists no files" in refused(download, "ctta", mirror=False)
        tree = Served(b'{"error": "gone"}')
        server[f"api/datasets/{self.REPOSITORY}/tree/main?recursive=true"] = tree
        assert "gives no list of files" in refused(download, "ctta", mirror=False)

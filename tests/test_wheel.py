"""A wheel has one top-level name, works beside other projects, and takes its data along."""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from PIL import Image

import setup
from CLIP import weight_files
from dataset.extras import install_command
from mvfa import Detector, __version__, commands
from tests.detectors import random_detector, random_images

ROOT = Path(__file__).parent.parent
EXTRAS = {path.stem.partition("-")[2]: path for path in ROOT.glob("requirements-*.txt")}
SCRIPTS = [name for name in setup.SCRIPTS if (ROOT / f"{name}.py").is_file()]
DATA = [  # a file of each kind that is no Python
    "CLIP/bpe_simple_vocab_16e6.txt.gz",
    "CLIP/model_configs/ViT-L-14-336.json",
    "prediction/templates/predictions.html.j2",
    "preparation/assets.csv",
]
LOADS = """
import sys
import mvfa
assert "torch" not in sys.modules
from mvfa import Detector
from mvfa.CLIP import tokenizer
from mvfa.CLIP.weights import create_model
from mvfa.versions import versions
import torch
clip = create_model("ViT-demo", image_size=120)  # of MVFA_WEIGHTS
assert clip.encode_image(torch.zeros(1, 3, 120, 120)).isfinite().all()
assert tokenizer.tokenize(["a photo"])[0, 0] == 49406
detector = Detector.load(sys.argv[1], clip_path=sys.argv[2])
print(versions()["mvfa"], versions()["commit"], mvfa.__file__, detector(sys.argv[3]).score, sep="|")
"""
IMPORTS_ALL = """
import importlib, pkgutil, mvfa
for module in pkgutil.walk_packages(mvfa.__path__, "mvfa."):
    importlib.import_module(module.name)
    print(module.name)
"""


def git(folder: Path, *arguments: str) -> str:
    person = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", folder, *person, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def a_commit(folder: Path) -> str:
    """Make a folder a repository of one commit; return its name."""
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={folder}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True, scope="module")
def at_the_root() -> Iterator[None]:
    """Run where setup.py runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Copy what a wheel is built of, with a weight file and a shot list that it must not take."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "ckpt", "fewshot_seed")
    for name in (setup.PACKAGE, *setup.FOLDERS, "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for pattern in ("*.py", "*.toml", "*.txt", "*.md", "LICENSE"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, folder)
    for path in ("CLIP/ckpt/ViT-demo.pt", "dataset/fewshot_seed/Brain/4-shot.txt"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).touch()
    (folder / "build/lib/mvfa").mkdir(parents=True)  # of an earlier build
    (folder / "build/lib/mvfa/removed.py").touch()
    return folder


@pytest.fixture(scope="module")
def commit(checkout) -> str:
    return a_commit(checkout)


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(checkout, commit, tmp_path_factory) -> Path:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", checkout, "-w", folder, "--no-build-isolation")
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Install it to a folder that lies in a repository of another project."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", wheel, "--target", folder)
    a_commit(folder)
    return folder


@pytest.fixture(scope="module")
def decoys(tmp_path_factory) -> Path:
    """Write modules of every name that a checkout has at its top, which end who imports them."""
    folder = tmp_path_factory.mktemp("another project")
    for name in setup.moved():
        (folder / f"{name}.py").write_text("raise RuntimeError('of another project')\n")
    return folder


def start(
    folder: Path, cwd: Path, *command: object, **variables: str
) -> subprocess.CompletedProcess:
    """Run a program that finds modules in a folder."""
    env = {**os.environ, "PYTHONPATH": str(folder), **variables}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def python(folder: Path, cwd: Path, *arguments: object, **variables: str) -> str:
    """Return what Python prints."""
    done = start(folder, cwd, sys.executable, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def detector(tiny_path, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "x.detector"
    random_detector(tiny_path).save(path)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "x.png"
    (image,) = random_images(1, 48, seed=8)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return path


def modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield file and name of everything that the modules below a folder import, at any time."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path, str(node.module)


def requirements(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("-r", "#"))]


def distribution(requirement: str) -> str:
    return re.split(r"[<>=~! \[;]", requirement)[0].lower().replace("_", "-")


def test_only_mvfa_lies_at_the_top(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    info = f"mvfa-{__version__}.dist-info"
    assert names == {"mvfa", info}
    assert zipfile.ZipFile(wheel).read(f"{info}/top_level.txt").split() == [b"mvfa"]


def test_every_module_and_its_data_are_there(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in setup.FOLDERS:
        assert {f"mvfa/{path.relative_to(ROOT)}" for path in ROOT.glob(f"{folder}/*.py")} <= names
    assert {f"mvfa/{path.relative_to(ROOT / 'mvfa')}" for path in ROOT.glob("mvfa/*.py")} <= names
    assert {f"mvfa/{name}.py" for name in (*setup.BOTTOM, "predict", "calibrate")} <= names
    assert {f"mvfa/{name}" for name in DATA} <= names
    unwanted = ("ckpt/", "fewshot_seed/", "__pycache__", "removed.py", "report/", "tests/")
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_what_is_imported_is_in_the_wheel_or_required(installed):
    required = {distribution(line) for line in requirements(ROOT / "requirements.txt")}
    for path in EXTRAS.values():
        required |= {distribution(line) for line in requirements(path)}
    providers = packages_distributions()
    for path, name in modules(installed / "mvfa"):
        first = name.split(".")[0]
        assert first not in setup.moved() | setup.left_out(), f"{path}: {name}"
        if first == "mvfa":
            place = installed / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{path}: {name}"
        elif first not in sys.stdlib_module_names:
            known = {provider.lower().replace("_", "-") for provider in providers[first]}
            assert known & required, f"{path}: {name} is in no requirements file"


def test_it_works_beside_modules_of_the_same_names(
    installed, decoys, commit, detector, picture, tiny_path, demo_weights
):
    weights = str(demo_weights.parent)
    arguments = ("-c", LOADS, detector, tiny_path, picture)
    printed = python(installed, decoys, *arguments, MVFA_WEIGHTS=weights)
    version, built_of, file, score = printed.split("|")
    assert version == __version__
    assert built_of == commit  # not that of the repository around the installation
    assert Path(file) == installed / "mvfa/__init__.py"
    expected = Detector.load(detector, clip_path=tiny_path)(picture).score
    assert float(score) == pytest.approx(expected, rel=1e-5)


def test_every_module_can_be_imported(installed, decoys):
    printed = python(installed, decoys, "-c", IMPORTS_ALL).splitlines()
    assert {"mvfa.prediction.run", "mvfa.scans.volume", "mvfa.utils", "mvfa.predict"} <= set(
        printed
    )


def test_commands_run_their_scripts(installed, decoys, detector, picture, tiny_path, tmp_path):
    command = installed / "bin/mvfa-predict"
    flags = ("-i", picture, "-o", tmp_path / "out", "--detector", detector)
    done = start(installed, decoys, command, *flags, "--clip_path", tiny_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    expected = Detector.load(detector, clip_path=tiny_path)(picture).score
    assert float(row["score"]) == pytest.approx(expected, rel=1e-5)
    assert (tmp_path / "out/index.html").is_file()


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_name_themselves(installed, decoys, script):
    name = f"mvfa-{script.replace('_', '-')}"
    done = start(installed, decoys, installed / "bin" / name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name} ")
    assert f"  {name} " in done.stdout  # its examples
    assert f"{script}.py" not in done.stdout
    done = start(installed, decoys, installed / "bin" / name, "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"(see {name} --help)\n")


def test_the_list_of_commands_is_the_same_twice():
    assert commands.SCRIPTS == setup.SCRIPTS
    with pytest.raises(AttributeError):
        _ = commands.no_such_script
    text = "make it with calibrate.py, or run python prepare_data.py draw; recalibrate.py"
    expected = "make it with mvfa-calibrate, or run mvfa-prepare-data draw; recalibrate.py"
    assert commands.as_installed(text, in_wheel=True) == expected
    assert commands.as_installed(text) == text


def test_metadata_names_versions_and_requirements(wheel):
    info = f"mvfa-{__version__}.dist-info"
    metadata = Parser().parsestr(zipfile.ZipFile(wheel).read(f"{info}/METADATA").decode())
    assert metadata["Version"] == __version__
    found = metadata.get_all("Requires-Dist")
    core = {distribution(line) for line in found if "extra ==" not in line}
    assert core == {distribution(line) for line in requirements(ROOT / "requirements.txt")}
    extras = EXTRAS.keys() - {"dev"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    for extra in extras:
        own = {distribution(line) for line in found if f'extra == "{extra}"' in line}
        assert own == {distribution(line) for line in requirements(EXTRAS[extra])}


def test_the_version_has_one_home():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == __version__


def test_weights_lie_with_the_user(installed, decoys, tmp_path):
    ask = "from mvfa.CLIP.weight_files import WEIGHTS; print(WEIGHTS)"
    found = python(installed, decoys, "-c", ask, MVFA_WEIGHTS="", XDG_DATA_HOME=str(tmp_path))
    assert Path(found).name == "weights"
    assert not Path(found).is_relative_to(installed)
    if sys.platform == "linux":
        assert Path(found) == tmp_path / "mvfa/weights"


def test_weights_lie_in_the_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("MVFA_WEIGHTS", raising=False)
    assert weight_files.weights_folder() == ROOT / "CLIP/ckpt"
    monkeypatch.setenv("MVFA_WEIGHTS", str(tmp_path))
    assert weight_files.weights_folder() == tmp_path
    assert weight_files.weights_folder(in_wheel=True) == tmp_path


def test_a_missing_extra_is_installed_as_this_is():
    assert install_command("scans") == "pip install -r requirements-scans.txt"
    assert install_command("scans", in_wheel=True) == 'pip install "mvfa[scans]"'


def test_an_editable_installation_is_the_checkout(checkout, tmp_path):
    hook = "import sys, setuptools.build_meta as b; b.build_editable(sys.argv[1])"
    python(Path(), checkout, "-c", hook, tmp_path)
    (path,) = tmp_path.glob("*.whl")
    pip("install", path, "--target", tmp_path / "site")
    top = [p.name for p in (tmp_path / "site").iterdir() if p.suffix != ".dist-info"]
    assert sorted(top) == ["__editable__.mvfa-0.1.0.pth", "bin"]
    ask = "import site, sys; site.addsitedir(sys.argv[1]); import mvfa.detector, utils\n"
    ask += "print(mvfa.Detector, mvfa.__file__, utils.__file__, sep='|')"
    found = python(Path(), tmp_path, "-c", ask, tmp_path / "site").split("|")
    assert found == [
        "<class 'mvfa.detector.Detector'>",
        str(checkout / "mvfa/__init__.py"),
        str(checkout / "utils.py"),
    ]


def test_a_source_archive_has_all_that_a_wheel_is_built_of(checkout, wheel, tmp_path):
    hook = "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])"
    python(Path(), checkout, "-c", hook, tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    pip("wheel", archive.with_suffix("").with_suffix(""), "-w", tmp_path, "--no-build-isolation")
    (path,) = tmp_path.glob("*.whl")
    without_commit = set(zipfile.ZipFile(wheel).namelist()) - {"mvfa/commit.txt"}
    assert set(zipfile.ZipFile(path).namelist()) == without_commit


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from CLIP.model import CLIP\n", "from mvfa.CLIP.model import CLIP\n"),
        ("from dataset import draws\n", "from mvfa.dataset import draws\n"),
        ("import utils\n", "import mvfa.utils as utils\n"),
        ("import os, utils, errors as e\n", "import os, mvfa.utils as utils, mvfa.errors as e\n"),
        ("import CLIP.model as m\n", "import mvfa.CLIP.model as m\n"),
        ("def f():\n    é = 1; import loss\n", "def f():\n    é = 1; import mvfa.loss as loss\n"),
        ("from utils import (\n    a,\n)\r\n", "from mvfa.utils import (\n    a,\n)\r\n"),
        ("from mvfa.utils import a\n", "from mvfa.utils import a\n"),
        ("from . import utils\n", "from . import utils\n"),
        ("'''\nfrom utils import a\n'''\n# import utils\n",) * 2,
        ("import utilsx, scipy.dataset\n",) * 2,
    ],
)
def test_imports_are_rewritten_and_nothing_else(source, expected):
    assert setup.rewritten(source.encode()).decode() == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import CLIP.model\n", "line 1: write `from a.b import c`, not `import CLIP.model`"),
        ("\nfrom  utils import a\n", "line 2: write"),
        ("from report.tables import a\n", "line 1: report.tables is not in the wheel"),
        ("import reproduce\n", "line 1: reproduce is not in the wheel"),
    ],
)
def test_imports_that_a_wheel_cannot_have_are_refused(source, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        setup.rewritten(source.encode())

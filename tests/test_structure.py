"""Data flows one way, and nothing imports a script."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = {"train_few", "test_few", "train_zero", "test_zero", "demo", "reproduce"}
LAYERS = [  # each may import those before it, and itself
    {"errors"},
    {"weight_files"},
    {"recipe"},
    {"prompt", "CLIP", "dataset", "utils"},
    {"scoring", "caches", "distributed"},
    {"loss"},
    {"streams", "engine"},
    {"counts"},
    {"metrics"},
    {"checkpoint"},
    {"evaluation"},
    {"details", "selection"},
    {"options"},
    {"launch", "report"},
    {"runner"},
    {"training", "testing"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
DRIVERS = {"demo", "reproduce"}  # scripts that run other scripts, as a person would


def modules() -> list[Path]:
    rooms = [ROOT, ROOT / "CLIP", ROOT / "dataset", ROOT / "report"]
    return [path for room in rooms for path in sorted(room.glob("*.py"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_flow_one_way(path):
    room = path.stem if path.parent == ROOT else path.parent.name
    if room in SCRIPTS:
        assert room in DRIVERS or not imported(path) & SCRIPTS
        return
    assert room in RANK, f"{room} has no layer"
    assert not imported(path) & SCRIPTS
    used = {name: RANK[name] for name in imported(path) if name in RANK and name != room}
    wrong = {name for name, rank in used.items() if rank > RANK[room]}
    assert not wrong, f"{path.name} imports {wrong}, which come later"


def test_flags_are_read_without_torch():
    told = "import sys, launch, train_few, test_few, train_zero, test_zero; print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_are_outlines(name):
    assert len((ROOT / f"{name}.py").read_text().splitlines()) < 120

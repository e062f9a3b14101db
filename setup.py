"""The wheel, in which everything lies below `mvfa`; pyproject.toml has the rest of the description.

In a checkout CLIP, dataset, utils and others are top-level modules beside the scripts. In
site-packages such names would hide other projects' modules, or be hidden by them. So a wheel holds
them as mvfa.CLIP, mvfa.dataset, mvfa.utils ..., and each import of them in its files is rewritten
to these names. The scripts become commands: mvfa-predict, mvfa-calibrate ... (mvfa/commands.py).

An editable installation (`pip install -e .`) is the checkout itself, with its own names.
"""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "mvfa"
FOLDERS = ("CLIP", "dataset", "scans", "synthetic", "preparation", "prediction")
BOTTOM = ("errors", "utils", "loss", "prompt")
SCRIPTS = (
    "predict",
    "calibrate",
    "app",
    "prepare_data",
    "demo",
    "train_few",
    "train_zero",
    "test_few",
    "test_zero",
)
SKIPPED = {"__pycache__", "ckpt", "fewshot_seed"}  # folders; weights and shot lists are data
COMMIT = "commit.txt"  # read by mvfa/versions.py


class Edit(NamedTuple):
    """A place in a source file, line and column in bytes from 0, and what stands and should."""

    line: int
    column: int
    old: str
    new: str


def scripts() -> list[str]:
    """Return the scripts of the wheel that exist."""
    return [name for name in SCRIPTS if Path(f"{name}.py").is_file()]


def moved() -> set[str]:
    """Return the top-level names that lie below the package in a wheel."""
    return {*FOLDERS, *BOTTOM, *scripts()}


def left_out() -> set[str]:
    """Return the top-level names that only a checkout has, such as the reproduction's."""
    packages = {path.parent.name for path in Path().glob("*/__init__.py")}
    modules = {path.stem for path in Path().glob("*.py")}
    return (packages | modules) - moved() - {PACKAGE}


def wheel_files() -> dict[Path, Path]:
    """Return the wheel's files: the path in the checkout, and that below the package.

    Raises ValueError if the package has a module of a moved name itself.
    """
    taken = {path.stem for path in Path(PACKAGE).iterdir()} & moved()
    if taken:
        raise ValueError(f"{PACKAGE}/ has {sorted(taken)} already, as names of the top level do")
    modules = [Path(f"{name}.py") for name in (*BOTTOM, *scripts())]
    inside = [path for folder in FOLDERS for path in Path(folder).rglob("*")]
    places = {path: path for path in modules + inside}
    places |= {path: path.relative_to(PACKAGE) for path in Path(PACKAGE).rglob("*")}
    return {
        path: place
        for path, place in places.items()
        if path.is_file() and not SKIPPED & set(path.parts) and not path.name.startswith(".")
    }


def edits(source: bytes) -> Iterator[Edit]:
    """Yield what is to be changed in a module of the wheel: each import of a moved name.

    The syntax tree knows what is an import, wherever it stands, and what only looks like one.
    Raises ValueError for an import of what is not in the wheel.
    """
    inside = moved()
    outside = left_out()
    for node in ast.walk(ast.parse(source)):
        found: list[tuple[str, Edit]] = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            name = str(node.module)
            old = f"from {name} "
            new = f"from {PACKAGE}.{name} "
            found = [(name, Edit(node.lineno - 1, node.col_offset, old, new))]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name  # import utils -> import mvfa.utils as utils
                bound = "" if alias.asname else f" as {name}"
                new = f"{PACKAGE}.{name}{bound}"
                found.append((name, Edit(alias.lineno - 1, alias.col_offset, name, new)))
        for name, edit in found:
            first = name.split(".")[0]
            if first in outside:
                raise ValueError(f"line {edit.line + 1}: {name} is not in the wheel")
            if first in inside:
                yield edit


def rewritten(source: bytes) -> bytes:
    """Return the source of a module as the wheel has it.

    Raises ValueError for an import that cannot be changed where it stands, such as
    `import CLIP.model`, which binds the name CLIP.
    """
    lines = source.splitlines(keepends=True)
    for edit in sorted(edits(source), reverse=True):  # from the end, so that places stay valid
        line = lines[edit.line]
        rest = line[edit.column :]
        if not rest.startswith(edit.old.encode()) or "." in edit.new.partition(" as ")[2]:
            shown = line.decode().strip()
            raise ValueError(f"line {edit.line + 1}: write `from a.b import c`, not `{shown}`")
        new = edit.new.encode() + rest[len(edit.old.encode()) :]
        lines[edit.line] = line[: edit.column] + new
    return b"".join(lines)


def commit() -> str:
    """Return the commit of the checkout, "" where it is none."""
    if not Path(".git").exists():  # else git would find a repository around an unpacked archive
        return ""
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class BuildPackage(build_py):
    """Writes the wheel's files; an editable installation needs none."""

    def run(self) -> None:
        """Write the files to the build folder."""
        if self.editable_mode:
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # a wheel takes whatever lies there
        package = Path(self.build_lib, PACKAGE)
        for path, place in wheel_files().items():
            content = path.read_bytes()
            if path.suffix == ".py":
                try:
                    content = rewritten(content)
                except ValueError as error:
                    raise ValueError(f"{path}, {error}") from error
            (package / place).parent.mkdir(parents=True, exist_ok=True)
            (package / place).write_bytes(content)
        if commit():
            (package / COMMIT).write_text(f"{commit()}\n")

    def get_source_files(self) -> list[str]:
        """Return the files of the checkout that a source archive needs."""
        return sorted(map(str, wheel_files()))


if __name__ == "__main__":
    commands = [
        f"{PACKAGE}-{name.replace('_', '-')} = {PACKAGE}.commands:{name}" for name in scripts()
    ]
    setup(cmdclass={"build_py": BuildPackage}, entry_points={"console_scripts": commands})

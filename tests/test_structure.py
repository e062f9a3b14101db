"""The house has floors, nothing imports a script, functions are short, and flags need no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [  # each may import those below it; those of one floor do not import one another
    {"errors"},
    {"utils"},
    {"loss", "prompt"},
    {"CLIP", "dataset"},
    {"synthetic", "scans", "preparation"},
    {"mvfa"},
    {"prediction"},
    {"report"},
]
RANK = {name: rank for rank, floor in enumerate(FLOORS) for name in floor}
PACKAGES = ("CLIP", "dataset", "synthetic", "scans", "preparation", "mvfa", "prediction", "report")
BELOW = ("mvfa/methods",)  # packages within packages
OUTLINES = ("train_few", "train_zero", "test_few", "test_zero", "calibrate", "predict")
DRIVERS = ("demo", "reproduce")  # run other scripts, as a person would
SCRIPTS = {*OUTLINES, *DRIVERS, "prepare_data", "app"}
AT_THE_ROOT = {"errors", "utils", "loss", "prompt", "setup"} | SCRIPTS
PROJECT = set(RANK) | SCRIPTS
LONGEST_FUNCTION = 60  # lines
PACKED_SHARE = 0.01  # of assignments


def sources() -> list[Path]:
    """Return every Python file outside tests."""
    folders = [ROOT, *(ROOT / name for name in PACKAGES), ROOT / "benchmarks"]
    folders += [ROOT / name for name in BELOW]
    return [path for folder in folders for path in sorted(folder.glob("*.py"))]


def title(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def home(path: Path) -> str:
    """Return the package that a file belongs to, or its own name at the root."""
    first = path.relative_to(ROOT).parts[0]
    return path.stem if path.parent == ROOT else first


def is_typing_only(node: ast.AST) -> bool:
    """Return whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(node: ast.AST, *, typing: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules that a tree imports, each with the names that are taken from it.

    Imports inside functions count. Those under TYPE_CHECKING count with `typing`.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, []) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "a relative import"
            yield child.module or "", [alias.name for alias in child.names]
        elif is_typing_only(child) and not typing:
            for other in child.orelse:
                yield from imports(other, typing=typing)
        else:
            yield from imports(child, typing=typing)


def imported_homes(path: Path) -> set[str]:
    """Return the first names of everything that a file imports, for types too."""
    tree = ast.parse(path.read_text())
    return {module.split(".")[0] for module, _ in imports(tree, typing=True)}


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return which modules of a package import which others of it, when it runs."""
    paths = {
        path: path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")
    }
    modules = {".".join(name.parts): path for path, name in paths.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for module, taken in imports(ast.parse(path.read_text()), typing=False):
            names = {module, *(f"{module}.{part}" for part in taken)}  # from mvfa import scoring
            graph[name] |= names & modules.keys()
    return graph


def test_the_root_holds_what_it_should():
    files = {path.stem for path in ROOT.glob("*.py")}
    assert files == AT_THE_ROOT


@pytest.mark.parametrize("path", sources(), ids=title)
def test_imports_go_down(path):
    name = home(path)
    if name in SCRIPTS or name in ("benchmarks", "setup"):
        return
    floor = RANK[name]
    others = (imported_homes(path) & PROJECT) - {name}
    wrong = {other for other in others if other in SCRIPTS or RANK[other] >= floor}
    assert not wrong, f"{title(path)} imports {wrong}, which are not below it"


@pytest.mark.parametrize("path", sources(), ids=title)
def test_only_drivers_import_scripts(path):
    if home(path) not in DRIVERS:
        assert not imported_homes(path) & SCRIPTS


def test_setup_imports_nothing_of_what_it_packs():
    assert imported_homes(ROOT / "setup.py") - {"setuptools"} <= sys.stdlib_module_names


def test_prompt_imports_only_torch():
    modules = imported_homes(ROOT / "prompt.py")
    assert modules - {"torch"} <= sys.stdlib_module_names


def test_neither_errors_nor_recipe_need_anything():
    for name in ("errors.py", "mvfa/recipe.py"):
        assert imported_homes(ROOT / name) <= sys.stdlib_module_names


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_import_circle(package):
    """Imports inside functions count."""
    try:
        list(TopologicalSorter(import_graph(ROOT / package)).static_order())
    except CycleError as error:
        pytest.fail("a circle: " + " -> ".join(error.args[1]))


def test_a_circle_would_be_seen(tmp_path):
    package = tmp_path / "loop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("from loop import two\n")
    (package / "two.py").write_text("def late():\n    from loop.one import something\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(import_graph(package)).static_order())
    (package / "two.py").write_text("if TYPE_CHECKING:\n    from loop.one import something\n")
    assert import_graph(package)["loop.two"] == set()
    assert import_graph(package)["loop.one"] == {"loop.two"}


def function_lengths(path: Path) -> dict[str, int]:
    """Return the lines of each function of a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, functions)
    }


@pytest.mark.parametrize("path", sources(), ids=title)
def test_functions_are_short(path):
    lengths = function_lengths(path).items()
    assert {name: lines for name, lines in lengths if lines > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("name", OUTLINES)
def test_scripts_are_outlines(name):
    assert 50 <= len((ROOT / f"{name}.py").read_text().splitlines()) <= 120


def is_packed(node: ast.Assign) -> bool:
    """Return whether an assignment packs several into one, as `a, b = x, y` does."""
    return isinstance(node.value, ast.Tuple) and any(
        isinstance(target, ast.Tuple) and len(target.elts) == len(node.value.elts)
        for target in node.targets
    )


def test_assignments_are_single():
    kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)
    assignments = [
        (path, node)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
    ]
    packed = [
        f"{title(path)}:{node.lineno}"
        for path, node in assignments
        if isinstance(node, ast.Assign) and is_packed(node)
    ]
    assert len(packed) <= PACKED_SHARE * len(assignments), packed


def run(script: str, *arguments: str) -> tuple[int, str, list[str], list[str]]:
    """Run a script; return its status and output, imported modules, and other lines of stderr."""
    command = [sys.executable, "-X", "importtime", script, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    imported = []
    messages = []
    for line in done.stderr.splitlines():
        if line.startswith("import time:"):
            imported.append(line.split("|")[-1].strip())
        else:
            messages.append(line)
    assert "mvfa.cli" in imported, "the list of imports was not read"
    return done.returncode, done.stdout, imported, messages


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_needs_no_torch(script):
    status, output, imported, messages = run(f"{script}.py", "--help")
    assert status == 0
    assert f"{script}.py" in output
    assert messages == []
    assert not {"torch", "gradio"} & set(imported)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_mistake_needs_no_torch(script):
    status, output, imported, messages = run(f"{script}.py", "--nonsense")
    assert status == 2
    assert output == ""
    assert len(messages) == 1
    assert messages[0].startswith("error: ")
    assert not {"torch", "gradio"} & set(imported)

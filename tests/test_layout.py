"""The house rules that a reader relies on: short files, one stem everywhere, imports in one direction, no network."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import compress_rec

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "compress_rec"
FOLDERS = {
    "recipe": "recipes",
    "measure": "measures",
    "op": "ops",
    "explainer": "explainers",
    "perturbation": "perturbations",
    "export": "exports",
    "baseline": "baselines",
}
# modules that share a test file, since they remove parts of a weight in the same way; every other one has a file of its name
TESTED_IN = dict.fromkeys(("prune_heads", "prune_neurons", "prune_weights"), "prune")
# what may be imported lies to the left; folders of instances and modules between two marks have no order among themselves
ORDER = (
    "registry",
    "op",
    "ops",
    "weights",
    "encoder",
    "towers",
    "recipe",
    "recipes",
    "variant",
    "trial",
    "measures",
    "report",
    "study",
    "run",
    "cli",
)


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports when it is itself imported; those for types or inside functions do not count."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "compress_rec":
                inner = node.module.partition(".")[2]
                found.update([inner] if inner else [alias.name for alias in node.names])
            elif isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("compress_rec."))
            elif isinstance(node, ast.Try):
                visit(node.body)

    visit(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def place(module: str) -> int | None:
    top = module.partition(".")[0]
    return ORDER.index(top) if top in ORDER else None


@pytest.mark.parametrize("folder", ["compress_rec", "csrc", "bench"])
def test_files_are_short_enough_to_be_read(folder: str) -> None:
    long = {}
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".cpp", ".h", ".cu"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > 400:
                long[str(path.relative_to(ROOT))] = lines
    assert not long


def test_tests_are_short_too() -> None:
    assert not {path.name: n for path in (ROOT / "tests").rglob("*.py") if (n := len(path.read_text(encoding="utf-8").splitlines())) > 500}


@pytest.mark.parametrize(("idea", "folder"), FOLDERS.items())
def test_a_singular_file_is_the_idea_and_the_plural_folder_holds_its_instances(idea: str, folder: str) -> None:
    assert (PACKAGE / f"{idea}.py").exists()
    names = [info.name for info in pkgutil.iter_modules([str(PACKAGE / folder)])]
    assert names
    tests = ROOT / "tests" / folder
    assert not [name for name in names if not (tests / f"test_{TESTED_IN.get(name, name)}.py").exists()]
    for name in TESTED_IN.keys() & {*names}:
        assert f"{folder}.{name} import" in (tests / f"test_{TESTED_IN[name]}.py").read_text(encoding="utf-8"), name
        assert not (tests / f"test_{name}.py").exists(), f"{name} has a test file of its name: take it out of TESTED_IN"


def test_imports_go_one_way() -> None:
    wrong = []
    for module, path in modules().items():
        mine = place(module)
        for other in imports(path):
            theirs = place(other)
            if mine is not None and theirs is not None and theirs > mine:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = modules()
    edges = {module: {other for other in imports(path) if other in known and other != module} for module, path in known.items()}
    state: dict[str, int] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        if state.get(module) == 2:
            return
        assert state.get(module) != 1, " → ".join((*way, module))
        state[module] = 1
        for other in sorted(edges[module]):
            visit(other, (*way, module))
        state[module] = 2

    for module in edges:
        visit(module, ())


def test_the_package_imports_neither_tests_nor_bench() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            assert not [name for name in names if name.partition(".")[0] in ("tests", "bench")], path


def test_no_file_is_named_after_nothing() -> None:
    banned = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc)(_|$)|^base_")
    assert not [path.name for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")) if banned.search(path.stem)]


def test_the_public_names_are_there() -> None:
    assert compress_rec.__all__ == sorted(compress_rec.__all__, key=lambda name: (name.islower(), name))
    for name in compress_rec.__all__:
        assert getattr(compress_rec, name).__doc__


def test_every_module_says_what_it_is() -> None:
    for module, path in modules().items():
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc, module
    assert importlib.import_module("compress_rec.listing").cards()


def test_the_package_names_no_host() -> None:
    """Nothing is fetched but packages, by pip: no address stands in the code."""
    try:
        tracked = subprocess.run(["git", "ls-files", "-z", "compress_rec", "csrc", "studies"], cwd=ROOT, capture_output=True, check=True)
        files = [ROOT / name for name in tracked.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [path for folder in ("compress_rec", "csrc", "studies") for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = {}
    for path in files:
        if path.suffix in (".py", ".cpp", ".h", ".toml", ".html", ".cu") and path.exists():
            hosts = set(re.findall(r"https?://([a-z0-9.-]+)", path.read_text(encoding="utf-8")))
            if hosts:
                named[str(path.relative_to(ROOT))] = hosts
    assert not named

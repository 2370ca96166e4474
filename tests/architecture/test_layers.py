"""Packages import downwards, what decides is pure, no private name of a library is used."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

# From top to bottom; each may import those below it, and all may import the modules beside them.
PACKAGES = (
    *("cli", "doctor", "injector", "emulator", "runtime", "audit_tools", "admin", "forwarding"),
    *("audit", "server", "shared_cache", "credentials", "upstream", "observability"),
    *("config", "policy", "http1", "net"),
)
PURE = ("http1", "policy", "config")
IMPURE = {"config.yaml_file"}
SHELL = {"aiohttp", "asyncio", "socket", "time"}
EMULATOR_MAY_KNOW = {"emulator", "errors", "files", "config"}
FOLDER_MOST = 12
PUBLIC = {"_exit"}  # of `os`, documented as it is

ROOT = Path(__file__).parents[2] / "proxy" / "icr_proxy"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imported(tree: ast.AST) -> Iterator[str]:
    """Give the dotted names of all that is imported, also in functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def level(package: str) -> int:
    """Modules beside the packages are below all of them."""
    return PACKAGES.index(package) if package in PACKAGES else len(PACKAGES)


def private(tree: ast.AST) -> set[str]:
    """Names with one leading underscore that are read or written on an object."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {n for n in names - PUBLIC if n.startswith("_") and not n.startswith("__")}


def of_library(module: str) -> set[str]:
    """Private names of the library classes from which a module's classes inherit."""
    found: set[str] = set()
    for made in vars(import_module(f"icr_proxy.{module}")).values():
        if not isinstance(made, type) or made.__module__ != f"icr_proxy.{module}":
            continue
        for base in made.__mro__[1:]:
            if not base.__module__.startswith(("icr_proxy.", "builtins", "typing", "abc", "enum")):
                found |= {name for name in vars(base) if not name.startswith("__")}
                try:
                    found |= private(ast.parse(textwrap.dedent(inspect.getsource(base))))
                except (OSError, TypeError):  # written in C
                    continue
    return found


def defined(tree: ast.AST) -> set[str]:
    """Names that our own classes give themselves."""
    names = {
        n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for each in targets if isinstance(each, ast.Name)}
    return names


OURS = {name for tree in TREES.values() for name in private(tree) & defined(tree)}


@pytest.mark.parametrize("module", sorted(set(FILES) - {"__main__", "icr_proxy"}))
def test_imports_go_down(module: str) -> None:
    names = (name for name in imported(TREES[module]) if name.startswith("icr_proxy."))
    packages = {package_of(name.removeprefix("icr_proxy.")) for name in names}

    upward = {each for each in packages if level(each) < level(package_of(module))}

    assert upward == set()


@pytest.mark.parametrize("module", sorted(m for m in FILES if package_of(m) in PURE))
def test_what_decides_knows_no_socket_and_no_clock(module: str) -> None:
    if module not in IMPURE:
        assert {name.partition(".")[0] for name in imported(TREES[module])} & SHELL == set()


@pytest.mark.parametrize("module", sorted(m for m in FILES if package_of(m) == "emulator"))
def test_the_emulator_is_a_program_of_its_own(module: str) -> None:
    names = (name for name in imported(TREES[module]) if name.startswith("icr_proxy."))

    assert {package_of(name.removeprefix("icr_proxy.")) for name in names} <= EMULATOR_MAY_KNOW


@pytest.mark.parametrize("module", sorted(set(FILES) - {"__main__"}))
def test_no_private_name_of_a_library_is_used(module: str) -> None:
    parts = {part for name in imported(TREES[module]) for part in name.split(".")}

    assert {part for part in parts if part.startswith("_") and not part.startswith("__")} == set()
    assert private(TREES[module]) <= OURS
    assert private(TREES[module]) & of_library(module) == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES.values()}))
def test_no_folder_holds_more_than_can_be_seen_at_once(folder: Path) -> None:
    assert len({*folder.glob("*.py")} - {folder / "__init__.py"}) <= FOLDER_MOST


@pytest.mark.parametrize(
    "package", sorted(FILES[p] for p in FILES if FILES[p].name == "__init__.py")
)
def test_a_package_says_what_it_is_and_nothing_else(package: Path) -> None:
    tree = ast.parse(package.read_text(encoding="utf-8"))

    assert len(ast.get_docstring(tree, clean=True).splitlines()) <= 3  # type: ignore[union-attr]
    assert len(tree.body) == 1 + (package.parent == ROOT)  # the version stands at the root


def test_the_list_of_packages_is_complete() -> None:
    folders = {path.parent for path in FILES.values() if path.parent.parent == ROOT}

    assert {folder.name for folder in folders} == set(PACKAGES)

"""The guides to the code name packages, modules, functions and targets that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.test_layers import PACKAGES

ROOT = Path(__file__).parents[2]
PRODUCT = ROOT / "proxy" / "icr_proxy"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GUIDES = (ARCHITECTURE, ROOT / "CONTRIBUTING.md")

LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"\[([^\]\n]+)\]\[([^\]\n]+)\]")
DEFINITION = re.compile(r"^\[([^\]\n]+)\]: (\S+)$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^ *```\w*\n.*?^ *```\n", re.DOTALL | re.MULTILINE)
A_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|yaml|json|md|toml|tpl|1))")
PACKAGE_ROW = re.compile(r"^\| `(\w+)` \| [A-Z].*\. \|$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z-]+)(?=[ `\n])")


def prose(guide: Path) -> str:
    return FENCED.sub("", guide.read_text(encoding="utf-8"))


def links(guide: Path) -> list[tuple[str, str]]:
    """Give text and target of every link, those by reference too."""
    text = prose(guide)
    targets = dict(DEFINITION.findall(text))
    return LINK.findall(text) + [(shown, targets[name]) for shown, name in REFERENCE.findall(text)]


def anchors(document: Path) -> set[str]:
    """Give the anchors of the headings as GitHub makes them."""
    headings = HEADING.findall(prose(document))
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


@cache
def definitions(module: Path) -> frozenset[str]:
    """Give the names that a module defines, methods as `Class.method`."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return frozenset(names(tree.body, prefix=""))


def names(body: list[ast.stmt], *, prefix: str) -> list[str]:
    found: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            found += names(node.body, prefix=f"{prefix}{node.name}.")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [prefix + each.id for each in targets if isinstance(each, ast.Name)]
    return found


def is_there(path: str) -> bool:
    return any((base / path).exists() for base in (ROOT, PRODUCT))


LINKS = [
    pytest.param(guide, text, target, id=f"{guide.name}-{text}-{target}")
    for guide in GUIDES
    for text, target in links(guide)
    if "://" not in target
]


def test_there_are_links_to_check() -> None:
    assert len(LINKS) > 80


@pytest.mark.parametrize(("guide", "text", "target"), LINKS)
def test_a_link_leads_to_something(guide: Path, text: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (guide.parent / path).resolve() if path else guide

    assert file.exists()
    assert not anchor or anchor in anchors(file)
    if text.startswith("`") and file.suffix == ".py":
        assert text.strip("`") in definitions(file)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.name))
def test_every_reference_is_defined_and_every_definition_is_used(guide: Path) -> None:
    text = prose(guide)

    assert {name for _, name in REFERENCE.findall(text)} == {n for n, _ in DEFINITION.findall(text)}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.name))
def test_every_path_that_is_named_is_there(guide: Path) -> None:
    shown = LINK.sub(r"\1", REFERENCE.sub(r"\1", prose(guide)))
    paths = {word for word in CODE.findall(shown) if A_PATH.fullmatch(word)}

    assert paths
    assert {path for path in paths if not is_there(path)} == set()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.name))
def test_every_make_target_that_is_named_exists(guide: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(MAKE.findall(" ".join(CODE.findall(prose(guide)))))
    named |= set(MAKE.findall("".join(FENCED.findall(guide.read_text(encoding="utf-8")))))

    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_table_of_packages_is_the_list_that_imports_follow() -> None:
    text = prose(ARCHITECTURE).partition("## One request")[0]

    assert tuple(PACKAGE_ROW.findall(text)) == PACKAGES


def test_the_readme_links_both_guides() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert {"docs/architecture.md", "CONTRIBUTING.md"} <= {t for _, t in LINK.findall(readme)}

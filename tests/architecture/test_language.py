"""What people read is short, plain, and leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.test_guides import CODE, LINK, anchors, prose

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_SENTENCE = 35  # words
LONGEST_README = 250  # lines
REPLACED = {
    "pre-flight": "preflight",
    "hard-wired": "fixed",
    "switch thrown": "action",
    "throw a switch": "use an action",
    "doorkeeper": "throttle",
    "turn away": "refuse",
    "hands of others": "another process",
}
"""Words that readers had to decode, and what the documents say now."""

ITEM = re.compile(r"^\s*(?:[*-]|\d+\.) ")
SENTENCE = re.compile(r"(?<=[.!?:;])\s+")


def blocks(document: Path) -> list[str]:
    """Give paragraphs, items and cells, without code and markup."""
    text = re.sub(r"<!--.*?-->", "", prose(document), flags=re.DOTALL)
    text = LINK.sub(r"\1", CODE.sub("x", text))
    found = [""]
    for line in text.splitlines():
        if line.startswith("|"):
            found += line.split("|")
        elif not line.strip() or ITEM.match(line):
            found.append(ITEM.sub("", line))
        else:
            found[-1] += f" {line}"
    return found


def sentences(document: Path) -> list[str]:
    return [each for block in blocks(document) for each in SENTENCE.split(block)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_no_sentence_is_long(document: Path) -> None:
    long = [each for each in sentences(document) if len(each.split()) > LONGEST_SENTENCE]

    assert long == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_words_that_were_replaced_stay_away(document: Path) -> None:
    text = document.read_text(encoding="utf-8").lower()

    assert {word: instead for word, instead in REPLACED.items() if word in text} == {}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_readme_begins_with_the_two_commands() -> None:
    beginning = "\n".join(README.read_text(encoding="utf-8").splitlines()[:10])

    assert re.findall(r"^make \w+", beginning, re.MULTILINE) == ["make demo", "make test"]


LINKS = [
    pytest.param(document, target, id=f"{document.relative_to(ROOT)}-{target}")
    for document in DOCUMENTS
    for _, target in LINK.findall(prose(document))
    if "://" not in target
]


@pytest.mark.parametrize(("document", "target"), LINKS)
def test_every_link_of_a_document_leads_to_something(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document

    assert file.exists()
    assert not anchor or anchor in anchors(file)


def test_the_readme_leads_to_every_document() -> None:
    """In one step, or in two by way of a document that it links."""
    linked: set[Path] = set()
    for document in (README, *linked_from(README)):
        linked |= set(linked_from(document))

    assert [each for each in DOCUMENTS[1:] if each not in linked] == []


def linked_from(document: Path) -> list[Path]:
    targets = [target.partition("#")[0] for _, target in LINK.findall(prose(document))]
    paths = [(document.parent / each).resolve() for each in targets if "://" not in each]
    return [path for path in paths if path.suffix == ".md"]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = [str(each.relative_to(ROOT / "docs")) for each in (ROOT / "docs").rglob("*.md")]

    assert sorted(re.findall(r'= "([a-z/-]+\.md)"', text)) == sorted(pages)

"""The console's page: it needs nothing from outside, and could use nothing."""

import re
from html.parser import HTMLParser

import pytest

from icr_proxy.admin.console_pages import FILES, FOLDER, POLICY, file_page, wants_html
from icr_proxy.server.response import OK

HTML = (FOLDER / "index.html").read_text()
CSS = (FOLDER / "console.css").read_text()
SCRIPT = (FOLDER / "console.js").read_text()
LOADS = {"src", "href", "action", "data", "poster", "srcset", "formaction", "background", "ping"}


class Tags(HTMLParser):
    """Every tag with its attributes, and what stands inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.inline += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside


PAGE = Tags(HTML)


def test_the_page_loads_its_two_files_and_nothing_else() -> None:
    loaded = {
        value
        for tag, attributes in PAGE.tags
        for name, value in attributes.items()
        if name in LOADS and tag != "a" and value is not None and not value.startswith("data:")
    }

    assert loaded == {"/console.css", "/console.js"}


def test_no_link_leads_away() -> None:
    assert {attributes["href"] for tag, attributes in PAGE.tags if tag == "a"} == {"#main"}


def test_no_script_and_no_style_stands_in_the_page() -> None:
    assert PAGE.inline == ""
    attributes = {name for _, found in PAGE.tags for name in found}
    assert "style" not in attributes
    assert not [name for name in attributes if name.startswith("on")]
    assert "style" not in {tag for tag, _ in PAGE.tags}


def test_the_styles_load_nothing() -> None:
    assert re.findall(r"url\(|@import|@font-face|image-set", CSS) == []


@pytest.mark.parametrize(
    "sink",
    [
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser",
        "createContextualFragment", "srcdoc", "eval(", "new Function", "setHTML", "javascript:",
        "import(", "://", "XMLHttpRequest", "WebSocket", "sendBeacon", "document.cookie",
    ],
)  # fmt: skip
def test_the_script_makes_no_markup_of_text_and_talks_to_nobody_else(sink: str) -> None:
    assert sink not in SCRIPT


def test_every_element_the_script_looks_for_is_there() -> None:
    ids = {attributes["id"] for _, attributes in PAGE.tags if "id" in attributes}
    wanted = set(re.findall(r"\$\(\"([a-z0-9-]+)\"\)", SCRIPT))

    assert wanted <= ids
    assert len(wanted) > 50


def test_every_id_is_there_once() -> None:
    ids = [attributes["id"] for _, attributes in PAGE.tags if "id" in attributes]

    assert len(ids) == len(set(ids))


def test_every_field_has_a_name_for_those_who_do_not_see_it() -> None:
    """A label around it, one that points to it, or `aria-label`."""
    pointed = {found.get("for") for tag, found in PAGE.tags if tag == "label"}
    around = set(re.findall(r'id="([^"]+)"', "".join(re.findall(r"<label.*?</label>", HTML))))
    fields = [found for tag, found in PAGE.tags if tag in ("input", "select", "textarea")]

    named = [found for found in fields if "aria-label" in found or found["id"] in pointed | around]

    assert named == fields
    assert len(fields) > 10


@pytest.mark.parametrize("path", FILES)
def test_a_file_comes_with_its_type_and_the_policy(path: str) -> None:
    page = file_page(path)

    headers = dict(page.headers)
    assert page.status == OK
    assert page.body == (FOLDER / FILES[path][0]).read_bytes()
    assert headers[b"Content-Security-Policy"] == POLICY
    assert headers[b"Referrer-Policy"] == b"no-referrer"
    assert headers[b"Cross-Origin-Resource-Policy"] == b"same-origin"
    assert (b"Vary" in headers) is (path == "/")


@pytest.mark.parametrize(
    "directive",
    [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
        "img-src 'self' data:", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    ],
)  # fmt: skip
def test_the_policy_allows_the_page_its_own_files(directive: str) -> None:
    assert directive in POLICY.decode().split("; ")


def test_the_policy_allows_nothing_unsafe() -> None:
    assert b"unsafe" not in POLICY
    assert b"*" not in POLICY


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", True),
        (b"TEXT/HTML", True),
        (b"*/*", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_a_browser_says_that_it_wants_a_page(accept: bytes, html: bool) -> None:  # noqa: FBT001
    assert wants_html([(b"Accept", accept)]) is html


def test_curl_says_nothing_of_the_kind() -> None:
    assert not wants_html([])


# -- what can be read -----------------------------------------------------------------------------


def colours(theme: str) -> dict[str, str]:
    block = re.search(rf':root\[data-theme="{theme}"\] {{\n(.*?)}}', CSS, re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block[1]))


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance ."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        *((text, behind) for text in ("text", "muted", "faint") for behind in ("panel", "back")),
        *((f"{kind}-text", f"{kind}-soft") for kind in ("ok", "client", "refused", "failed")),
        *((f"{kind}-text", "panel") for kind in ("client", "refused", "failed")),
        ("muted", "sunken"),
        ("accent", "panel"),
        ("on-accent", "accent"),
    ],
)
def test_text_stands_out_from_what_is_behind_it(theme: str, text: str, behind: str) -> None:
    """https://www.w3.org/TR/WCAG22/#contrast-minimum ."""
    found = colours(theme)

    assert contrast(found[text], found[behind]) >= 4.5


def test_the_system_s_dark_theme_is_the_chosen_one() -> None:
    of_system = re.search(r':root:not\(\[data-theme="light"\]\) {\n(.*?)}', CSS, re.DOTALL)
    assert of_system is not None

    assert dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", of_system[1])) == dict(
        re.findall(
            r"--([a-z0-9-]+): ([^;]+);", CSS.split(':root[data-theme="dark"] {')[1].split("}")[0]
        )
    )

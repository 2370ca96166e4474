"""The console on the admin port of a real proxy: who sees what, over sockets."""

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.admin.console_pages import FILES, FOLDER, POLICY, file_page, wants_html
from icr_proxy.config.models import AdminConfig, Config
from icr_proxy.emulator.server import Emulator
from icr_proxy.server.response import OK
from tests.support.app_fixture import (
    RawAnswer,
    RunningProxy,
    call,
    config_for,
    request_head,
    running,
)

LOCAL = "127.0.0.1:0"
CLOSE = [("GET", "/events"), ("GET", "/facts"), ("POST", "/explain")]
SWITCHES = ["/tokens/in-1/drop", "/installations/in-1/block", "/installations/in-1/unblock"]


def config_with(**admin: Any) -> Config:
    config = config_for("http://127.0.0.1:9")
    object.__setattr__(config, "admin", AdminConfig(**{"bind": LOCAL} | admin))
    return config


async def ask(
    proxy: RunningProxy, method: str, path: str, *headers: str, body: bytes = b""
) -> RawAnswer:
    port = int(proxy.app.admin.address.rpartition(":")[2])
    lines = [f"{method} {path} HTTP/1.1", *headers, f"Content-Length: {len(body)}"]
    if not any(line.startswith("Host:") for line in lines):
        lines.insert(1, f"Host: 127.0.0.1:{port}")
    request = "\r\n".join((*lines, "", "")).encode() + body
    if path == "/events" and method == "GET":
        request = request.replace(b"GET", b"HEAD", 1)  # it would not end
    return await call(port, request)


async def explain(proxy: RunningProxy, **question: Any) -> tuple[int, dict[str, Any]]:
    answer = await ask(proxy, "POST", "/explain", body=json.dumps(question).encode())
    told: dict[str, Any] = json.loads(answer.body)
    return answer.status, told


# -- the page -------------------------------------------------------------------------------------


async def test_a_browser_gets_the_page_and_curl_the_index(proxy: RunningProxy) -> None:
    page = await ask(proxy, "GET", "/", "Accept: text/html,*/*;q=0.8")
    text = await ask(proxy, "GET", "/", "Accept: */*")

    assert page.body.startswith(b"<!doctype html>")
    assert page.values(b"Vary") == [b"Accept"]
    assert text.values(b"Content-Type") == [b"text/plain; charset=utf-8"]
    assert text.body.startswith(b"/healthz /startupz /readyz /metrics /status\n")
    assert b"the console" in text.body


@pytest.mark.parametrize("path", FILES)
async def test_every_file_is_sent_under_the_policy(proxy: RunningProxy, path: str) -> None:
    answer = await ask(proxy, "GET", path, "Accept: text/html")

    assert answer.status == 200
    assert answer.values(b"Content-Security-Policy") == [POLICY]
    assert answer.values(b"X-Content-Type-Options") == [b"nosniff"]
    assert answer.values(b"Cache-Control") == [b"no-store"]
    assert answer.values(b"Cross-Origin-Resource-Policy") == [b"same-origin"]


@pytest.mark.parametrize("path", ["/console.html", "/index.html", "/console/../app.py", "/x.js"])
async def test_there_is_no_other_file(proxy: RunningProxy, path: str) -> None:
    answer = await ask(proxy, "GET", path, "Accept: text/html")

    assert answer.status == 404


@pytest.mark.parametrize("path", FILES)
async def test_a_file_is_only_looked_at(proxy: RunningProxy, path: str) -> None:
    answer = await ask(proxy, "DELETE", path, "Accept: text/html")

    assert (answer.status, answer.values(b"Allow")) == (405, [b"GET, HEAD"])


async def test_a_link_from_elsewhere_leads_to_the_page(proxy: RunningProxy) -> None:
    """What is linked in a chat is opened by a click there; the chat sees nothing of it."""
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")

    page = await ask(proxy, "GET", "/", "Accept: text/html", *link)
    status = await ask(proxy, "GET", "/status", *link)

    assert (page.status, status.status) == (200, 403)


async def test_a_console_can_be_turned_off() -> None:
    async with running(config_with(console=False)) as proxy:
        page = await ask(proxy, "GET", "/", "Accept: text/html")
        found = [(await ask(proxy, method, path)).status for method, path in CLOSE]

    assert page.body.startswith(b"/healthz")
    assert b"console" not in page.body
    assert found == [404, 404, 404]
    assert proxy.app.observers.feed is None
    assert proxy.log("proxy.ready")[0]["console"] is None


async def test_the_start_says_where_it_is(proxy: RunningProxy) -> None:
    assert proxy.log("proxy.ready")[0]["console"] == f"{proxy.admin_url}/"


# -- who may come closer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/events", b"GET, HEAD"),
        ("PUT", "/facts", b"GET, HEAD"),
        ("GET", "/explain", b"POST"),
    ],
)
async def test_each_is_asked_in_its_own_way(
    proxy: RunningProxy, method: str, path: str, allow: bytes
) -> None:
    answer = await ask(proxy, method, path)

    assert (answer.status, answer.values(b"Allow")) == (405, [allow])


@pytest.mark.parametrize(("method", "path"), [*CLOSE, *(("POST", path) for path in SWITCHES)])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(["Sec-Fetch-Site: cross-site"], id="a page of the web"),
        pytest.param(["Origin: https://attacker.example"], id="its form"),
        pytest.param(
            ["Host: attacker.example", "Sec-Fetch-Site: same-origin", "X-ICR-Proxy-Console: 1"],
            id="its name rebound",
        ),
        pytest.param(["Origin: http://127.0.0.1:{port}"], id="our origin without our header"),
        pytest.param(["Sec-Fetch-Site: same-origin"], id="our site without our header"),
        pytest.param(
            ["Origin: http://127.0.0.1:1", "X-ICR-Proxy-Console: 1"], id="another port of ours"
        ),
        pytest.param(
            [
                "Origin: http://127.0.0.1:{port}",
                "X-ICR-Proxy-Console: 1",
                "Sec-Fetch-Site: cross-site",
            ],
            id="what no browser would send",
        ),
    ],
)
async def test_a_page_of_the_web_comes_no_closer(
    proxy: RunningProxy, method: str, path: str, headers: list[str]
) -> None:
    port = proxy.app.admin.address.rpartition(":")[2]
    asked = [line.replace("{port}", port) for line in headers]

    answer = await ask(proxy, method, path, *asked, body=b"{}" if path == "/explain" else b"")

    assert answer.status in (403, 421)
    assert proxy.log("admin.installation_blocked") == []
    assert proxy.log("admin.token_dropped") == []


async def test_the_page_s_own_button_throws_the_switch(proxy: RunningProxy) -> None:
    port = proxy.app.admin.address.rpartition(":")[2]
    own = (f"Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: same-origin")

    answer = await ask(proxy, "POST", "/installations/in-1/block", *own, "X-ICR-Proxy-Console: 1")

    assert answer.status == 200
    assert json.loads(answer.body)["blocked"] is True


async def test_no_answer_lets_another_origin_read_it(proxy: RunningProxy) -> None:
    """A browser asks first whether it may send the header; there is no yes to be had."""
    answer = await ask(
        proxy, "OPTIONS", "/tokens/in-1/drop", "Access-Control-Request-Headers: x-icr-proxy-console"
    )

    assert answer.status == 405
    assert not [name for name, _ in answer.headers if name.lower().startswith(b"access-control")]


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "127.0.0.1:0"])
async def test_with_a_token_file_the_token_is_needed(tmp_path: Path, bind: str) -> None:
    """On loopback, too, where other users are; probes and metrics are as open as before."""
    file = tmp_path / "token"
    async with running(config_with(bind=bind, token_file=file)) as proxy:
        right = f"X-ICR-Proxy-Admin-Token: {file.read_text().strip()}"
        paths = [
            ("HEAD", "/events"),
            ("GET", "/facts"),
            ("GET", "/status"),
            ("POST", SWITCHES[1]),
            ("POST", "/quit"),
        ]

        without = [(await ask(proxy, *each)).status for each in paths]
        wrong = [(await ask(proxy, *each, right + "x")).status for each in paths]
        given = [(await ask(proxy, *each, right)).status for each in paths]
        open_to_all = [
            (await ask(proxy, "GET", path)).status
            for path in ("/healthz", "/startupz", "/readyz", "/metrics", "/")
        ]
        seen = json.dumps(proxy.log())

        assert (without, wrong, given) == ([403] * 5, [403] * 5, [200] * 5)
        assert open_to_all == [200] * 5
        assert file.read_text().strip() not in seen
    assert not file.exists()


async def test_the_token_is_in_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with running(config_with(token_file=file)) as proxy:
        token = file.read_text().strip().encode()
        bodies = [
            (await ask(proxy, "GET", path, f"X-ICR-Proxy-Admin-Token: {token.decode()}")).body
            for path in ("/", "/status", "/facts", "/metrics")
        ]

    assert token
    assert not any(token in body for body in bodies)


# -- facts and explanations -----------------------------------------------------------------------


async def test_facts_tell_the_configuration_without_its_secrets(proxy: RunningProxy) -> None:
    answer = await ask(proxy, "GET", "/facts")

    told = json.loads(answer.body)
    settings = {each["key"]: each for each in told["config"]}
    assert settings["app.private_key"]["value"] == "(set)"
    assert settings["upstream.base_url"]["changed"] is True
    assert settings["limits.in_flight"] == {
        "key": "limits.in_flight", "value": "1000", "changed": False,
    }  # fmt: skip
    assert told["codes"]["policy-denied"]["meaning"].startswith("A rule")
    assert "PRIVATE" not in answer.body.decode()


async def test_a_question_is_explained_and_nothing_is_sent(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    tag = next(iter(emulator.world.installations))

    status, told = await explain(
        proxy,
        method="POST",
        url="/v1/retire?key=planted",
        headers=[f"X-ICR-Installation-Id: {tag}", "Authorization: Bearer planted"],
    )

    assert (status, told["verdict"], told["operation"]) == (200, "forwarded", "v1.retire")
    assert "first request has one made" in dict(told["rows"])["token"]
    assert told["sentence"] == "It would be forwarded. Nothing was sent to the API."
    assert "planted" not in json.dumps(told["headers"])
    assert not emulator.world.requests


async def test_the_token_of_this_proxy_is_told(proxy: RunningProxy, emulator: Emulator) -> None:
    tag = next(iter(emulator.world.installations))
    await call(proxy.port, request_head(tag=tag))

    _, told = await explain(
        proxy, method="GET", url="/projects", headers=[f"X-ICR-Installation-Id: {tag}"]
    )

    assert told["token"]["token"]["state"] == "fresh"
    assert told["token"]["sentence"].startswith("fresh here, ")


async def test_a_refusal_is_explained(proxy: RunningProxy) -> None:
    status, told = await explain(proxy, method="GET", url="/app/installations")

    assert (status, told["verdict"]) == (200, "refused")
    assert told["refusal"]["code"] == "endpoint-refused"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "as JSON"),
        (b"nonsense", "as JSON"),
        (b"\xff", "as JSON"),
        (b'{"method":"GET"}', "as JSON"),
        (b'{"method":"GET","url":"/","more":1}', "as JSON"),
        (b'{"method":"GET","url":"/","headers":["x"]}', "Name: value"),
        (b'{"method":"G T","url":"/"}', "is not a method"),
        (b'{"method":"GET","url":"no slash"}', "the URL must be"),
        (b'{"method":"GET","url":"/","listener":"127.0.0.1:1"}', "there is no listener"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told(
    proxy: RunningProxy, body: bytes, sentence: str
) -> None:
    answer = await ask(proxy, "POST", "/explain", body=body)

    assert answer.status == 400
    assert sentence in json.loads(answer.body)["message"]


async def test_a_question_has_its_bounds(proxy: RunningProxy) -> None:
    answer = await ask(proxy, "POST", "/explain", body=b"x" * 70_000)

    assert answer.status == 413


async def test_a_question_that_never_comes_is_given_up(
    proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icr_proxy.admin.console_pages.READ_SECONDS", 0.05)
    port = int(proxy.app.admin.address.rpartition(":")[2])

    async with asyncio.timeout(10):
        answer = await call(
            port, b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{"
        )

    assert answer.status == 408


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

"""The live console in a real browser: what it shows, its buttons and keys, and a storm of requests.

Not part of `make test`: it needs Debian's Chromium. `.ci/run` runs it.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.audit.chain import ChainHead
from icr_proxy.audit.writer_thread import WriteResult
from icr_proxy.config.inbound_models import PolicyConfig, RuleConfig
from icr_proxy.config.models import AdminConfig, AuditConfig
from icr_proxy.emulator.server import Emulator
from tests.external.browser.chromium import chromium
from tests.support.app_fixture import call, config_for, request_head, running
from tests.support.audit_fixture import records_in
from tests.support.fakes import outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Page

    from tests.support.app_fixture import RunningProxy

TABS = ["traffic", "installations", "proxy", "explain", "config"]
REPORT = PolicyConfig(
    mode="report", rules=(RuleConfig(name="no-retirements", action="deny", operations=("v1.*",)),)
)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Stage:
    """An emulated API, a proxy before it, and its console in a browser."""

    emulator: Emulator
    proxy: RunningProxy
    page: Page
    complaints: list[str] = field(default_factory=list)

    @property
    def installations(self) -> list[str]:
        return list(self.emulator.world.installations)

    async def use(self, target: str = "/projects", **parts: Any) -> int:
        head = request_head(**{"target": target, "tag": self.installations[0]} | parts)
        return (await call(self.proxy.port, head)).status

    async def see(self, selector: str, text: str) -> None:
        """Wait until an element says something."""
        await self.page.locator(selector).filter(has_text=text).first.wait_for()

    async def stats(self) -> dict[str, int]:
        found: dict[str, int] = await self.page.evaluate("consoleStats")
        return found

    async def rows(self) -> list[str]:
        """Give the paths in the list, the newest first."""
        paths: list[str] = await self.page.evaluate("view.map((row) => row.path)")
        return paths


@asynccontextmanager
async def stage(
    *,
    fragment: str = "",
    scheme: Any = "light",
    width: int = 1280,
    trail: Path | None = None,
    **admin: Any,
) -> AsyncIterator[Stage]:
    async with Emulator() as emulator, chromium() as browser:
        config = config_for(
            emulator.base_url,
            app_id=emulator.app_id,
            key=emulator.private_key_pem,
            policy=REPORT,
            audit=AuditConfig(directory=trail),
        )
        object.__setattr__(config, "admin", AdminConfig(**{"bind": "127.0.0.1:0"} | admin))
        async with running(config) as proxy:
            context = await browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": 900}
            )
            page = await context.new_page()
            page.set_default_timeout(20_000)
            found = Stage(emulator, proxy, page)
            # What the Content Security Policy forbids is complained of here as well.
            page.on("console", lambda said: found.complaints.append(said.text))
            page.on("pageerror", lambda error: found.complaints.append(str(error)))
            page.on("dialog", lambda dialog: found.complaints.append(f"dialog {dialog.message}"))
            port = proxy.app.admin.address.rpartition(":")[2]
            await page.goto(f"http://127.0.0.1:{port}/{fragment}")
            yield found
            assert found.complaints == []


@pytest.fixture
async def console() -> AsyncIterator[Stage]:
    async with stage() as found:
        await found.see("#live", "live")
        yield found


# -- what is shown --------------------------------------------------------------------------------


async def test_it_opens_and_knows_the_proxy(console: Stage) -> None:
    await console.see("#state", "ready")
    await console.see("#where-upstream", console.emulator.base_url)

    assert await console.page.title() == "icr-proxy"


async def test_a_request_appears_without_a_reload(console: Stage) -> None:
    assert await console.use("/projects?key=planted") == 200

    await console.see(".request .path", "/projects")
    await console.see("#n-rate-note", "1 request")

    assert "planted" not in await console.page.content()


async def test_what_happened_before_it_was_opened_is_there(console: Stage) -> None:
    await console.use("/projects")
    await console.page.reload()

    await console.see(".request .path", "/projects")


async def test_text_is_never_markup(console: Stage) -> None:
    evil = "<img/src=x/onerror=alert(1)>"
    await console.use(f"/{evil}", tag=None)

    await console.see(".request .path", evil)
    await console.page.locator(".request").first.click()

    await console.see("#drawer .target", evil)
    assert await console.page.locator("img").count() == 0


async def test_one_request_is_told_in_full(console: Stage) -> None:
    await console.use("/v1/retire", method="POST", extra="X-Forwarded-For: 10.0.0.1\r\n")
    await console.page.locator(".request").first.click()

    drawer = console.page.locator("#drawer")
    text = await drawer.inner_text()
    (line,) = console.proxy.log("request.done")
    for fact in (
        line["token"], line["request_id"], line["trace_id"], "changes state", "first byte",
        "x-forwarded-for", "+ authorization", "~ host", "no-retirements would refuse",
    ):  # fmt: skip
        assert fact in text
    assert "crs_" not in text


async def test_a_request_is_told_with_the_numbers_of_its_audit_records(tmp_path: Path) -> None:
    async with stage(trail=tmp_path) as console:
        await console.see("#live", "live")
        await console.use("/projects")
        await console.use("/v1/retire", method="POST")
        await console.page.locator(".request").filter(has_text="/v1/retire").click()
        await console.see("#d-audit", "intent")
        await console.see("#d-audit", "outcome")
        change = await console.page.locator("#d-audit").inner_text()
        await console.page.keyboard.press("Escape")
        await console.page.locator(".request").filter(has_text="/projects").click()
        read = await console.page.locator("#d-audit").inner_text()
        await console.page.keyboard.press("Escape")
        await console.page.keyboard.press("3")
        await console.see("#p-audit", "written")

    of = {(each.get("path"), each["kind"]): each["seq"] for each in records_in(tmp_path)}
    intent, outcome = of["/v1/retire", "intent"], of["/v1/retire", "request"]
    assert change == f"intent {intent} · outcome {outcome}"
    assert read == f"outcome {of['/projects', 'request']}"


async def test_a_number_that_comes_late_is_filled_in(tmp_path: Path) -> None:
    async with stage(trail=tmp_path) as console:
        await console.see("#live", "live")
        feed = console.proxy.app.observers.feed
        assert feed is not None
        seen = outcome(started_at=console.emulator.world.now())
        feed.read_all([seen])
        await console.page.locator(".request").first.click()
        await console.see("#d-audit", "none is known")
        feed.landed(WriteResult(entries=[seen], last=77, head=ChainHead(), segment=None))

        await console.see("#d-audit", "outcome 77")


async def test_without_a_trail_none_is_spoken_of(console: Stage) -> None:
    await console.use("/projects")
    await console.page.locator(".request").first.click()

    assert await console.page.locator("#d-audit").count() == 0
    await console.page.keyboard.press("Escape")
    await console.page.keyboard.press("3")
    await console.see("#p-audit", "off")


async def test_a_refusal_is_told_with_its_meaning(console: Stage) -> None:
    await console.use("/app/installations")
    await console.page.locator(".request").first.click()

    await console.see("#drawer .meaning", "The target lies under")
    await console.see("#drawer", "It was never sent")


async def test_the_other_views_tell_of_keys_policy_and_configuration(console: Stage) -> None:
    await console.use("/v1/retire", method="POST")
    await console.page.keyboard.press("3")
    await console.see("#p-keys", "active")
    await console.see("#p-upstream", "closed")
    await console.see("#p-rules tr", "no-retirements")
    await console.page.locator("#p-rules td.num").filter(has_text="1").wait_for()
    await console.page.keyboard.press("5")
    await console.see("#c-rows tr.is-changed", "upstream.base_url")

    text = await console.page.locator("#c-rows").inner_text()
    assert "PRIVATE" not in text
    assert "(set)" in text


# -- the list -------------------------------------------------------------------------------------


async def test_the_list_is_filtered(console: Stage) -> None:
    await console.use("/projects")
    await console.use("/v1/retire", method="POST")
    await console.use("/app/installations")
    await console.see(".request .path", "/app/installations")
    page = console.page

    await page.fill("#f-text", "proj")
    await console.see("#rows-note", "1 of 3 requests")
    by_text = await console.rows()
    await page.click("#f-clear")
    await page.check("#f-writes")
    await console.see("#rows-note", "1 of 3 requests")
    by_effect = await console.rows()
    await page.click("#f-clear")
    await page.select_option("#f-status", "proxy")
    await console.see("#rows-note", "1 of 3 requests")
    by_origin = await console.rows()
    await page.fill("#f-text", "nothing is like this")
    await console.see("#rows-empty", "No request in memory fits")

    assert by_text == ["/projects"]
    assert by_effect == ["/v1/retire"]
    assert by_origin == ["/app/installations"]


async def test_a_paused_list_stands_still_and_loses_nothing(console: Stage) -> None:
    await console.use("/projects")
    await console.see(".request .path", "/projects")

    await console.page.click("#pause")
    await console.use("/organizations/later")
    await console.see("#rows-note", "Paused, 1 request waiting")
    during = await console.rows()
    await console.page.click("#pause")
    await console.see(".request .path", "/organizations/later")

    assert during == ["/projects"]
    assert await console.rows() == ["/organizations/later", "/projects"]


async def test_nothing_moves_under_a_pointer_that_is_about_to_choose(console: Stage) -> None:
    await console.use("/projects")
    await console.see(".request .path", "/projects")

    await console.page.hover(".request >> nth=0")
    await console.use("/organizations/later")
    await console.see("#rows-note", "Held still under the pointer, 1 request waiting")
    during = await console.rows()
    await console.page.hover("#state")
    await console.see(".request .path", "/organizations/later")

    assert during == ["/projects"]


# -- buttons and forms ----------------------------------------------------------------------------


async def test_the_buttons_throw_the_switches(console: Stage) -> None:
    page, installation = console.page, console.installations[0]
    await console.use()
    await page.keyboard.press("2")
    row = page.locator("#i-rows tr").filter(has_text=installation)
    await row.locator(".pill").filter(has_text="fresh").wait_for()

    await row.get_by_text("Drop token").click()
    await row.locator(".pill").filter(has_text="no token").wait_for()
    await row.get_by_role("button", name="Block").click()
    asked_first = console.proxy.log("admin.installation_blocked")
    await row.get_by_text("Really block?").click()
    await row.locator(".pill").filter(has_text="blocked").wait_for()
    refused = await console.use()
    await row.get_by_text("Unblock").click()
    await row.locator(".pill").filter(has_text="no token").wait_for()

    assert asked_first == []
    assert refused == 403
    assert await console.use() == 200
    assert [line["dropped"] for line in console.proxy.log("admin.token_dropped")] == [True]


async def test_the_form_explains_and_sends_nothing(console: Stage) -> None:
    page = console.page
    await page.keyboard.press("4")
    await page.fill("#e-method", "POST")
    await page.fill("#e-url", "/v1/retire")
    await page.fill("#e-tag", console.installations[0])
    await page.fill("#e-headers", "Authorization: Bearer crs_planted")
    await page.click("#e-form button")

    await console.see("#e-result .verdict", "It would be forwarded")
    await console.see("#e-result", "denied (rule no-retirements); only reported")
    await console.see("#e-result .edits", "Bearer crs_… (masked)")
    assert not console.emulator.world.requests


# -- looks and keys -------------------------------------------------------------------------------


async def test_it_follows_the_system_s_theme_and_a_choice_of_one_s_own() -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    async with stage(scheme="dark") as console:
        dark = await console.page.evaluate(background)
        await console.page.click("#theme")
        light = await console.page.evaluate(background)
        await console.page.reload()
        kept = await console.page.evaluate(background)
        await console.page.keyboard.press("t")
        again = await console.page.evaluate(background)

    assert (dark, light, kept, again) == (
        "rgb(11, 17, 16)", "rgb(244, 246, 245)", "rgb(244, 246, 245)", "rgb(11, 17, 16)",
    )  # fmt: skip


async def test_everything_is_within_reach_of_the_keyboard(console: Stage) -> None:
    page, key = console.page, console.page.keyboard.press
    await console.use("/projects")
    await console.use("/organizations/second")
    await console.see(".request .path", "/organizations/second")

    await key("?")
    await page.locator("#help[open]").wait_for()
    await key("Escape")
    await key("/")
    focused = await page.evaluate("document.activeElement.id")
    await page.keyboard.type("proj")
    await key("Escape")
    kept = await page.input_value("#f-text")
    await key("j")
    await key("Enter")
    await console.see("#drawer .target", "/projects")
    await key("Escape")
    closed = await page.locator("#drawer").is_hidden()
    for number, tab in enumerate(TABS, start=1):
        await key(str(number))
        assert await page.locator(f"#{tab}").is_visible()
    await page.focus("#tab-config")
    await key("ArrowRight")

    assert (focused, kept, closed) == ("f-text", "proj", True)
    assert await page.evaluate("document.activeElement.id") == "tab-traffic"


async def test_what_has_the_focus_is_seen_to_have_it(console: Stage) -> None:
    outlines = set()
    names = []
    for _ in range(13):
        await console.page.keyboard.press("Tab")
        name, outline = await console.page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        names.append(name)
        outlines.add(outline)

    assert "none" not in outlines
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("width", [360, 768, 1280, 2200])
async def test_no_view_is_wider_than_the_screen(width: int) -> None:
    async with stage(width=width) as console:
        await console.use(f"/organizations/{'x' * 200}")
        await console.see("#live", "live")
        for number in range(len(TABS)):
            await console.page.keyboard.press(str(number + 1))
            assert await console.page.evaluate(OVERFLOW) <= 0


# -- who may see it -------------------------------------------------------------------------------


async def test_with_a_token_file_an_open_port_asks_for_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with stage(bind="0.0.0.0:0", token_file=file) as console:
        await console.see("#gate-text", "The admin token is needed")
        # The browser itself says that an answer was a 403.
        assert all("403" in said for said in console.complaints)
        await console.page.fill("#gate-token", file.read_text().strip())
        await console.page.click("#gate-form button")

        await console.see("#live", "live")
        await console.page.locator("#gate").wait_for(state="hidden")
        console.complaints.clear()


async def test_a_token_in_the_fragment_opens_it_and_leaves_the_address(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with stage(bind="0.0.0.0:0", token_file=file, fragment="") as console:
        await console.see("#gate-text", "The admin token is needed")
        console.complaints.clear()
        await console.page.goto("about:blank")
        port = console.proxy.app.admin.address.rpartition(":")[2]
        token = file.read_text().strip()
        await console.page.goto(f"http://127.0.0.1:{port}/#token={token}")

        await console.see("#live", "live")
        assert console.page.url == f"http://127.0.0.1:{port}/"
        assert token not in json.dumps(console.proxy.log())


# -- a storm --------------------------------------------------------------------------------------


async def test_a_thousand_requests_a_second_are_all_counted_and_none_is_missed(
    console: Stage,
) -> None:
    """The page takes every frame, uses the same few elements, and says what it does not list."""
    feed = console.proxy.app.observers.feed
    assert feed is not None
    await console.use()
    await console.see(".request", "/projects")
    await asyncio.sleep(1)
    before = await console.stats()
    told = 0
    for tick in range(100):
        for number in range(50):
            facts: dict[str, Any] = {"status": 503 if number == 7 else 200}
            facts |= {"started_at": feed._now(), "installation": f"in-{number % 9}"}
            facts["request_id"] = f"{tick}-{number}"
            feed.read_all([outcome(**facts)])
            told += 1
        await asyncio.sleep(0.05)

    async with asyncio.timeout(30):
        while (await console.stats())["requests"] - before["requests"] < told:  # noqa: ASYNC110  # a page tells nobody
            await asyncio.sleep(0.1)
    after = await console.stats()

    print("the page's own counters:", before, after)  # noqa: T201  # -rP shows it
    assert after["requests"] - before["requests"] == told
    assert after["missed"] == 0
    assert after["events"] - before["events"] <= told / 50  # frames, not requests
    assert after["frames"] > before["frames"]
    counted = await console.page.evaluate(
        "[...known.seconds.values()].reduce((sum, s) => sum + s[1] + s[2] + s[3] + s[4], 0)"
    )
    assert counted == told + 1
    assert await console.page.locator(".request").count() < 60
    assert "more counted but not listed" in await console.page.locator("#rows-note").inner_text()


async def test_it_says_when_the_proxy_drains(console: Stage) -> None:
    draining = asyncio.ensure_future(console.proxy.app.drain())

    await console.see("#live", "draining")
    await console.see("#state", "draining")

    await draining
    # The browser itself says that the next try was answered with 503.
    console.complaints[:] = [said for said in console.complaints if "503" not in said]

"""A page on the web cannot use a proxy on this machine; one that is allowed can. In a real browser.

Not part of `make test`: it needs Debian's Chromium. `.ci/run` runs it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import BrowserConfig, CallerConfig
from icr_proxy.policy.caller_auth import hash_of, new_key
from tests.external.browser.attacks import ATTACKS, PAGE, script
from tests.external.browser.chromium import chromium
from tests.support.app_fixture import TAG, Visit, config_for, ok, running, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.support.app_fixture import RunningProxy, ScriptedUpstream

GUARD_SECONDS = 20
# The most a listener can give away: whoever comes acts as this installation, without a word.
OPEN = {"installation": "inst-1", "tags": ("header", "path")}
READ = """async ([url, options]) => {
  const answer = await fetch(url, options);
  return [answer.status, await answer.text(), answer.headers.get('x-total')];
}"""
SECRET_BODY = b'{"credits": 1234}'


async def plainly(visit: Visit, head: bytes) -> None:
    lines = [line.lower().partition(b":") for line in head.splitlines()]
    length = sum(int(value) for name, _, value in lines if name == b"content-length")
    await visit.reader.readexactly(length)
    await visit.say(ok(SECRET_BODY, headers=b"Content-Type: application/json\r\nX-Total: 1\r\n"))


@dataclass
class Site:
    """A web site of somebody else: one page, and redirects to wherever the query says."""

    port: int = 0
    seen: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        target = head.split(b" ")[1]
        self.seen.append(target)
        if target.startswith(b"/redirect?"):
            location = target.removeprefix(b"/redirect?")
            said = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n" % location
            writer.write(said + b"Connection: close\r\n\r\n")
        else:
            writer.write(ok(PAGE, headers=b"Content-Type: text/html\r\nConnection: close\r\n"))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    found = Site()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


@dataclass
class Stage:
    """An API, a proxy before it, a page of somebody else, a browser."""

    api: ScriptedUpstream
    proxy: RunningProxy
    site: Site
    browser: Browser

    async def open(self, host: str) -> Page:
        """Open the page under this name."""
        page = await (await self.browser.new_context()).new_page()
        await page.goto(f"http://{host}:{self.site.port}/")
        return page

    async def until_done(self, path: str) -> list[dict[str, Any]]:
        """Wait until the proxy has dealt with a request for this path."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not (lines := self.done(path)):  # noqa: ASYNC110  # a log tells nobody
                await asyncio.sleep(0.02)
        return lines

    def done(self, path: str) -> list[dict[str, Any]]:
        return [line for line in self.proxy.log("request.done") if line["path"] == path]


@asynccontextmanager
async def stage(**sections: Any) -> AsyncIterator[Stage]:
    async with (
        scripted_upstream(plainly) as api,
        site() as found,
        running(config_for(api.url, **({"listener": OPEN} | sections))) as proxy,
        chromium(names="*.test") as browser,
    ):
        yield Stage(api, proxy, found, browser)


# -- pages that are not allowed -------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("host", "target"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="another port: same-site"),
        pytest.param("attacker.test", "localhost", id="another name: cross-site"),
    ],
)
async def test_nothing_that_a_page_can_do_reaches_the_api(host: str, target: str) -> None:
    async with stage() as on:
        seen = {}
        for name in ATTACKS:
            page = await on.open(host)
            path = f"/v1/attack/{name}"
            await page.evaluate(script(name, f"http://{target}:{on.proxy.port}{path}"))
            seen[name] = await on.until_done(path)
            await page.context.close()

        codes = {name: {line["code"] for line in lines} for name, lines in seen.items()}
        assert codes.pop("websocket") == {"not-implemented"}
        assert codes == {name: {"browser-refused"} for name in codes}
        assert (on.api.visits, on.api.mints, on.api.heads) == (0, 0, [])
        print(f"{len(ATTACKS)} attacks from {host} on {target} were refused")  # noqa: T201


async def test_a_refusal_that_is_shown_loads_nothing() -> None:
    """A browser asks for the icon of whatever it shows, as the site's own."""
    async with stage() as on:
        page = await on.open("attacker.test")
        await page.evaluate(script("navigation", f"{on.proxy.url}/v1/attack"))
        await on.until_done("/v1/attack")
        await page.wait_for_load_state("networkidle")

        assert [line["path"] for line in on.proxy.log("request.done")] == ["/v1/attack"]
        assert (on.api.visits, on.api.mints) == (0, 0)


async def test_a_name_that_was_rebound_to_this_machine_is_refused() -> None:
    """To the browser the page and the proxy are one origin: no mark, and it may read all.

    The page comes from a port that the proxy takes over afterwards: to the browser that is what an
    attacker does with DNS, whose name first means his machine and then this one.
    """
    async with scripted_upstream(plainly) as api, chromium(names="*.test") as browser:
        async with site() as found:
            page = await browser.new_page()
            await page.goto(f"http://attacker.test:{found.port}/")
        listener = OPEN | {"bind": f"127.0.0.1:{found.port}"}
        async with running(config_for(api.url, listener=listener)) as proxy:
            headers = {TAG: "inst-1"}
            got = await page.evaluate(READ, ["/projects", {"headers": headers}])
            sent = await page.evaluate(
                READ, ["/v1/retire", {"method": "POST", "body": "{}", "headers": headers}]
            )

        assert (got[0], sent[0]) == (421, 421)
        assert "credits" not in got[1] + sent[1]
        assert {line["code"] for line in proxy.log("request.done")} == {"wrong-host"}
        assert (api.visits, api.mints) == (0, 0)


async def test_what_a_person_types_is_served() -> None:
    async with stage() as on:
        page = await on.browser.new_page()
        answer = await page.goto(f"http://127.0.0.1:{on.proxy.port}/projects")

        assert answer is not None
        assert answer.status == 200
        assert "1234" in await page.content()


# -- a page that is allowed -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "attacker.test"])
async def test_an_allowed_page_calls_and_reads_and_its_preflight_stays_here(host: str) -> None:
    async with site() as found, scripted_upstream(plainly) as api:
        allowed = BrowserConfig(allow_origins=(f"http://127.0.0.1:{found.port}",))
        config = config_for(api.url, browser=allowed)
        async with running(config) as proxy, chromium(names="*.test") as browser:
            on = Stage(api, proxy, found, browser)
            page = await on.open(host)
            url = f"{proxy.url}/projects"
            options = {"method": "POST", "body": "{}", "headers": {
                TAG: "inst-1", "Content-Type": "application/json",
            }}  # fmt: skip
            if host != "127.0.0.1":
                with pytest.raises(Exception, match="Failed to fetch"):
                    await page.evaluate(READ, [url, options])
                assert api.visits == 0
                return

            assert await page.evaluate(READ, [url, options]) == [200, SECRET_BODY.decode(), "1"]

        assert [head.split(b" ")[0] for head in api.heads] == [b"POST"]
        assert [line["method"] for line in proxy.log("request.done")] == ["OPTIONS", "POST"]


async def test_an_allowed_page_may_read_why_it_was_refused() -> None:
    async with site() as found, scripted_upstream(plainly) as api:
        allowed = BrowserConfig(allow_origins=(f"http://127.0.0.1:{found.port}",))
        async with (
            running(config_for(api.url, browser=allowed)) as proxy,
            chromium() as browser,
        ):
            page = await Stage(api, proxy, found, browser).open("127.0.0.1")
            read = await page.evaluate(READ, [f"{proxy.url}/projects", {}])

        assert read[0] == 400
        assert "installation-required" in read[1]


async def test_even_an_allowed_page_must_ask_in_its_own_name() -> None:
    """Without CORS nobody says which page it is, so that it could be any."""
    async with site() as found, scripted_upstream(plainly) as api:
        allowed = BrowserConfig(allow_origins=(f"http://127.0.0.1:{found.port}",))
        async with (
            running(config_for(api.url, browser=allowed, listener=OPEN)) as proxy,
            chromium() as browser,
        ):
            on = Stage(api, proxy, found, browser)
            page = await on.open("127.0.0.1")
            await page.evaluate(script("image", f"{proxy.url}/projects"))
            [line] = await on.until_done("/projects")

        assert line["code"] == "browser-refused"
        assert api.visits == 0


async def test_an_allowed_page_shows_a_key_where_callers_are_known() -> None:
    key = new_key()
    async with site() as found, scripted_upstream(plainly) as api:
        config = config_for(
            api.url,
            browser=BrowserConfig(allow_origins=(f"http://127.0.0.1:{found.port}",)),
            callers=(CallerConfig(name="page", keys=(hash_of(key),)),),
            listener=OPEN,
        )
        async with running(config) as proxy, chromium() as browser:
            page = await Stage(api, proxy, found, browser).open("127.0.0.1")
            url = f"{proxy.url}/projects"
            without = await page.evaluate(READ, [url, {}])
            options = {"headers": {"Authorization": f"Bearer {key}"}}
            with_key = await page.evaluate(READ, [url, options])

        assert (without[0], with_key[0]) == (401, 200)
        assert "caller-unauthenticated" in without[1]

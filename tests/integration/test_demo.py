"""`icr-proxy demo`, as a newcomer runs it."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

from icr_proxy.cli import demo
from tests.support.program import GUARD_SECONDS, run_to_end, start
from tests.unit.cli.test_main import bare_environment


async def test_the_demo_shows_the_main_job_and_exits_with_0() -> None:
    code, out, err = await run_to_end(["demo"], bare_environment())

    assert (code, err) == (0, "")
    assert "Authorization: Bearer crs_… " in out
    assert "x-icr-api-version: 2023-06-16" in out
    assert "10 answers with HTTP 200, 1 token minted." in out
    assert "HTTP 200 after 3 attempts" in out
    assert "code: installation-required" in out
    assert '"event": "request.done"' in out
    assert len(re.findall(r"\| icr_proxy_\w+_total", out)) == 3
    assert "All of it went as promised." in out
    assert "\x1b[" not in out
    assert not re.search(r"crs_[0-9a-f]{4}", out)


async def test_the_demo_kept_running_can_be_tried_and_ends_on_a_signal() -> None:
    process = await start(["demo", "--keep"], bare_environment())
    assert process.stdout is not None
    out = ""
    async with asyncio.timeout(GUARD_SECONDS):
        while "/_emulator/state" not in out:
            out += (await process.stdout.readline()).decode()
    line = re.search(r"\| curl (-H '(.*?): (.*?)') http://(\S+?)(/\S+)", out.partition("Still")[2])
    assert line is not None

    console = re.search(r"The live console: http://(\S+)/", out)
    assert console is not None

    reply = await asyncio.to_thread(demo._ask, line[4], "GET", line[5], {line[2]: line[3]})
    page = await asyncio.to_thread(demo._ask, console[1], "GET", "/", {"Accept": "text/html"})
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(GUARD_SECONDS):
        await process.communicate()

    assert reply.status == 200
    assert page.body.startswith(b"<!doctype html>")
    assert process.returncode == 0


def test_the_demo_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_stage: demo.Stage) -> None:
        """Nothing works."""
        raise demo.UnexpectedError("the answer is 500, not 200")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SCENES", (broken,))
        code = demo.play(keep=False)

    assert code == 1
    assert "The demo failed: the answer is 500, not 200" in capsys.readouterr().err

"""Plays one hostile answer and says everything that was wrong about what the callers got.

Two installations: the first gets the hostile answer, the second asks a moment later and must get
its own, whatever lies on the connections by then.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz.hearing import Heard, Malformed, hear
from tests.fuzz.hostile import ABOUT_TOKEN, Truth, read_answer_strictly
from tests.fuzz.recorder import MINT, Api, Incoming, plain, understand
from tests.fuzz.reference import Header, Unfinished, Unreadable
from tests.fuzz.stage import UNEXPECTED, Caller, Stage, stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from tests.fuzz.hostile import Saying

NO_CONTENT = 204  # has no length (RFC 9110, 8.6); one that an API sends stays here
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade x-icr-proxy-error".split()
)
FIRST, SECOND = b"inst-1", b"inst-2"
STATUS_NOW = re.compile(
    rb"(?:\s*HTTP/1\.1 1\d\d [^\r]*\r\n(?:[^\r]+\r\n)*\r\n)*\s*(?:HTTP|RTSP)/1\.[01] (\d\d\d)"
)


@dataclass(slots=True)
class HostileApi(Api):
    """Says to the first installation what a case says, and the truth to the second."""

    victim: HostileConnection | None = None
    """The connection on which it is said."""
    is_said: bool = False

    def connection(self) -> asyncio.Protocol:
        return HostileConnection(self)


class HostileConnection(asyncio.Protocol):
    """One connection to it."""

    def __init__(self, api: HostileApi) -> None:
        self._api = api
        self._raw = b""
        self._transport: asyncio.Transport | None = None
        self.is_over = False
        """Whether it carries another request by now, or nothing any more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.is_over = True

    def data_received(self, data: bytes) -> None:
        self._raw += data
        message = understand(self._raw)
        if message is not None:
            self._raw = b""
            self._answer(message)

    def _answer(self, message: Incoming) -> None:
        found = MINT.fullmatch(message.target)
        if found is not None:
            self.say(self._api.mint(found[1]))
            return
        seen = self._api.record(message)
        self.is_over = True
        if seen.installation == FIRST and not self._api.is_said:
            self.is_over = False
            self._api.is_said = True
            self._api.victim = self
            return
        body = b"%d for %b" % (seen.number, seen.installation or b"nobody")
        is_head = message.method == b"HEAD"
        self.say(plain(200, body, extra=b"X-For: " + body + b"\r\n", head_only=is_head))

    def say(self, data: bytes) -> None:
        """Send."""
        assert self._transport is not None
        self._transport.write(data)

    def leave(self, how: str) -> None:
        """Close or reset."""
        assert self._transport is not None
        if how == "close":
            self._transport.close()
        elif how == "reset":
            self._transport.abort()


@dataclass(slots=True)
class Verdict:
    """What came of one case."""

    wrong: list[str] = field(default_factory=list)
    heard: Heard | None = None


class Outbound:
    """A proxy before a hostile API that is asked one case after the other."""

    def __init__(self, stage: Stage, api: HostileApi) -> None:
        self._stage = stage
        self._api = api
        self.counts: Counter[str] = Counter()
        """How often the first caller got what."""

    async def play(self, saying: Saying) -> Verdict:
        """Have both installations ask."""
        api, loop = self._api, self._stage.loop
        api.requests.clear()
        api.is_said, api.victim = False, None
        first = self._stage.caller()
        first.say(ask(saying.method, FIRST))
        await loop.settled()
        await self._say(saying.pieces[: saying.second], saying.pause)
        second = await self._ask_second()
        await self._say(saying.pieces[saying.second :], saying.pause[saying.second :])
        self._leave(saying.ending)
        verdict = Verdict()
        for caller in (first, second):
            if not await self._stage.end_of(caller):
                verdict.wrong.append("the connection does not end")
        self._judge(saying, first, second, verdict)
        return verdict

    async def _say(self, pieces: list[bytes], pause: list[bool]) -> None:
        for piece, waits in zip(pieces, pause, strict=False):
            if waits:
                await self._stage.loop.settled()
            victim = self._api.victim
            # Once it carries another request, these bytes would be the answer to that.
            if victim is not None and not victim.is_over:
                victim.say(piece)

    def _leave(self, how: str) -> None:
        victim = self._api.victim
        if victim is not None and not victim.is_over:
            victim.leave(how)

    async def _ask_second(self) -> Caller:
        if self._api.random.random() < 0.5:
            await self._stage.loop.settled()
        caller = self._stage.caller()
        caller.say(ask(b"GET", SECOND))
        return caller

    def _judge(self, saying: Saying, first: Caller, second: Caller, verdict: Verdict) -> None:
        wrong = verdict.wrong
        wrong += self._stage.remains()
        wrong += [f"logged: {x}" for x in self._stage.outcomes() if x["event"] in UNEXPECTED]
        asked = [seen for seen in self._api.requests if seen.installation == FIRST]
        try:
            wrong += judge_second(second)
            result = judge_first(saying, first, times=len(asked), wrong=wrong)
        except Malformed as error:
            wrong.append(f"malformed answer: {error}")
            return
        self.counts[result] += 1
        if saying.is_plain and result not in ("whole", "again"):
            wrong.append(f"a plain answer did not arrive: {result}")


@asynccontextmanager
async def outbound(random: Random) -> AsyncIterator[Outbound]:
    """Set up a proxy before a hostile API."""
    api = HostileApi(random=random)
    async with stage(api.connection) as running:
        yield Outbound(running, api)


def ask(method: bytes, installation: bytes) -> bytes:
    """Write the last request of a connection."""
    body = b"Content-Length: 2\r\n\r\n{}" if method == b"POST" else b"\r\n"
    return (
        b"%b /v1/retire HTTP/1.1\r\nHost: localhost\r\nX-ICR-Installation-Id: %b\r\n"
        b"Connection: close\r\n%b" % (method, installation, body)
    )


def judge_second(caller: Caller) -> list[str]:
    """Check that the second installation got what is its own, and nothing else."""
    heard = hear(bytes(caller.heard), methods=[b"GET"])
    if len(heard.answers) == 1 and not heard.rest:
        answer = heard.answers[0]
        if answer.is_whole and answer.body.endswith(b" for " + SECOND):
            return []
    return [f"the second caller heard {bytes(caller.heard)!r}"]


def judge_first(saying: Saying, caller: Caller, *, times: int, wrong: list[str]) -> str:
    """Say in a word what the first caller got, and what of it is wrong."""
    hearing = hear(bytes(caller.heard), methods=[saying.method])
    truth = read_truth(saying)
    status = STATUS_NOW.match(saying.stream)
    about_token = status is not None and int(status[1]) in ABOUT_TOKEN
    if times > 1 and not about_token and (saying.method == b"POST" or saying.stream):
        wrong.append(f"sent {times} times")
    if not hearing.answers or not hearing.answers[0].is_whole:
        if not caller.was_reset:
            wrong.append(f"cut off in good order: {bytes(caller.heard)!r}")
        return "broken"
    answer = hearing.answers[0]
    is_cut = answer.ends_with_connection and caller.was_reset
    if is_cut:
        return "broken"
    if answer.values(b"x-icr-proxy-error"):
        return "refused"
    if answer.values(b"x-for"):
        if not answer.values(b"x-for")[0].endswith(b" for " + FIRST):
            wrong.append(f"the first caller heard {answer}")
        return "again"
    if truth is None:
        wrong.append(f"heard {answer}, said was {saying.stream!r}, {saying.ending}")
        return "whole"
    wrong += compare(answer, truth)
    return "whole"


def read_truth(saying: Saying) -> Truth | None:
    """Give the one answer that was said, if there is one."""
    try:
        truth = read_answer_strictly(saying.stream, method=saying.method)
    except (Unfinished, Unreadable):
        return None
    if truth.until_close and saying.ending != "close":
        return None
    return truth


def compare(answer: Heard, truth: Truth) -> list[str]:
    """Say what differs between what was said and what was heard."""
    named = {
        part.strip(b" \t").lower()
        for value in truth.values(b"connection")
        for part in value.split(b",")
    }
    meant = [
        (name, value)
        for name, value in truth.headers
        if name.lower() not in HOP_BY_HOP
        and name.lower() not in named
        and not (truth.status == NO_CONTENT and name.lower() == b"content-length")
    ]
    if (answer.status, answer.reason, answer.body) != (truth.status, truth.reason, truth.body):
        return [f"heard {answer}, said was {truth}"]
    added = [header for header in answer.headers[len(meant) :] if not is_id(header)]
    if answer.headers[: len(meant)] != meant or not set(added) <= ADDED:
        return [f"headers heard {answer.headers}, meant were {meant}"]
    return []


def is_id(header: Header) -> bool:
    """Whether it is the ID that the proxy gives an answer."""
    name, value = header
    return name == b"X-Request-Id" and re.fullmatch(rb"[0-9a-f]{32}", value) is not None


ADDED: frozenset[Header] = frozenset(
    {
        (b"Cache-Control", b"private"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Connection", b"close"),
    }
)

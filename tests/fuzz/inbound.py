"""Plays one case of the inbound grammar and says everything that was wrong about it."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.hearing import Heard, Hearing, Malformed, hear
from tests.fuzz.recorder import Api, Seen
from tests.fuzz.reference import Message, Reading, read_strictly
from tests.fuzz.stage import UNEXPECTED, Caller, Stage, stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fuzz.grammar import Case

TAG = b"x-icr-installation-id"
ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
# What a request never takes along, by RFC 9110, 7.6.1 and by docs/requests.md; written down once
# more so that a name lost from the proxy's own list is found.
NOT_FORWARDED = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade content-length expect host authorization x-icr-installation-id"
    b" x-http-method-override x-http-method x-method-override x-original-url x-rewrite-url"
    b" x-icr-organization-id x-request-id traceparent x-icr-api-version forwarded x-forwarded-for"
    b" x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-server"
    b" x-real-ip".split()
)
FRAMING = (b"content-length", b"transfer-encoding")
ADDED = (b"authorization", b"x-icr-api-version", b"via", b"x-request-id", b"traceparent")


@dataclass(slots=True)
class Verdict:
    """What came of one case."""

    wrong: list[str] = field(default_factory=list)
    answers: list[Heard] = field(default_factory=list)
    forwarded: int = 0


class Inbound:
    """A proxy that is asked one case after the other."""

    def __init__(self, stage: Stage, api: Api) -> None:
        self._stage = stage
        self._api = api
        self.counts: Counter[str] = Counter()
        """How often callers heard what: statuses, and codes of refusals."""

    async def play(self, case: Case) -> Verdict:
        """Have a caller say it, until the connection is over."""
        self._api.requests.clear()
        caller = self._stage.caller()
        await self._speak(caller, case)
        verdict = Verdict()
        if not await self._stage.end_of(caller):
            verdict.wrong.append("the connection does not end")
        verdict.wrong += self._stage.remains()
        verdict.wrong += self._api.wrong
        self._api.wrong.clear()
        codes = [line for line in self._stage.outcomes() if line["event"] in UNEXPECTED]
        verdict.wrong += [f"logged: {line}" for line in codes]
        self._judge(case, caller, verdict)
        return verdict

    async def _speak(self, caller: Caller, case: Case) -> None:
        wire, loop = caller.wire, self._stage.loop
        assert wire is not None
        reads_late = case.ending == "read late"
        if reads_late:
            wire.peer.choke(full=True)
        for piece, pause in zip(case.pieces, case.pause, strict=True):
            wire.write(piece)
            if pause:
                await loop.settled()
        if reads_late:
            await loop.settled()
            wire.peer.choke(full=False)
        if case.ending == "close":
            wire.close()
        elif case.ending == "half close":
            wire.write_eof()
        elif case.ending == "reset":
            wire.abort()

    def _judge(self, case: Case, caller: Caller, verdict: Verdict) -> None:
        reading = read_strictly(case.stream)
        places = match(self._api.requests, reading.messages, verdict.wrong)
        verdict.forwarded = len(places)
        methods = [message.method for message in reading.messages]
        methods.append(reading.rest.partition(b" ")[0])
        try:
            hearing = hear(bytes(caller.heard), methods=methods)
        except Malformed as error:
            verdict.wrong.append(f"malformed answer: {error}: {bytes(caller.heard)!r}")
            return
        verdict.answers = hearing.answers
        stayed = case.ending in ("wait", "read late")
        if stayed:
            verdict.wrong += judge_answers(hearing, reading, places, was_reset=caller.was_reset)
        if case.is_plain and stayed:
            verdict.wrong += judge_plain(hearing, reading)
        for heard in hearing.answers:
            code = heard.values(b"x-icr-proxy-error")
            self.counts[code[0].decode() if code else str(heard.status)] += 1
        self.counts["forwarded"] += len(self._api.requests)
        self.counts["unanswered"] += not hearing.answers


@asynccontextmanager
async def inbound(random: Random) -> AsyncIterator[Inbound]:
    """Set up a proxy before an API that records."""
    api = Api(random=random)
    async with stage(api.connection) as running:
        yield Inbound(running, api)


def match(seen: list[Seen], messages: list[Message], wrong: list[str]) -> dict[int, int]:
    """Find for each request upstream which of the caller's it is: in order, each at most once.

    Gives the place among the caller's requests by the number of the request upstream.
    """
    places: dict[int, int] = {}
    place = -1
    refused: Seen | None = None
    for each in seen:
        again = refused is not None and is_same(refused, each)
        if not again or not is_exactly(each, messages[place]):
            place += 1
            # Two may differ in nothing but their headers, and one of them be refused.
            while place < len(messages) and not is_exactly(each, messages[place]):
                place += 1
        if place >= len(messages) or not is_exactly(each, messages[place]):
            meant = [judge_headers(each, x) for x in messages if is_meant(each, x)]
            wrong.append(f"nobody meant {each}, if not for {meant}")
            return places
        places[each.number] = place
        # After two refusals of tokens, and one more of a token too young, it is over.
        refused = each if each.was_refused else None
    return places


def is_same(one: Seen, other: Seen) -> bool:
    """Whether it is the same request once more."""
    return (one.method, one.target, one.body, one.installation) == (
        other.method, other.target, other.body, other.installation,
    )  # fmt: skip


def is_exactly(seen: Seen, message: Message) -> bool:
    """Whether a request upstream is a caller's request to the last header."""
    return is_meant(seen, message) and not judge_headers(seen, message)


def is_meant(seen: Seen, message: Message) -> bool:
    """Whether a request upstream is what a caller's request asked for, with the right token."""
    tags = message.values(TAG)
    if len(tags) != 1 or ID.fullmatch(tags[0]) is None or message.values(b"x-icr-organization-id"):
        return False
    target = message.target
    if not target.startswith((b"/", b"*")):
        target = re.sub(rb"^[^/]*//[^/?#]*", b"", target)
        if message.method == b"OPTIONS" and not target:
            target = b"*"  # RFC 9112, 3.2.4
        target = target if target.startswith((b"/", b"*")) else b"/" + target
    return (seen.method, seen.target, seen.body, seen.installation) == (
        message.method, target, message.body, tags[0],
    )  # fmt: skip


def judge_headers(seen: Seen, message: Message) -> list[str]:
    """Compare the headers upstream with what they must be."""
    meant = [(b"Host", seen.host)]
    meant += [
        (name, value)
        for name, value in message.headers
        if name.lower().replace(b"_", b"-") not in NOT_FORWARDED
        and name.lower() not in message.options
    ]
    ours = [(name, value) for name, value in seen.headers if name.lower() in FRAMING]
    kept = [each for each in seen.headers if each not in ours]
    wrong = []
    if kept[: -len(ADDED)] != meant:
        wrong.append(f"headers upstream are {kept}, meant were {meant}")
    if tuple(name.lower() for name, _ in kept[-len(ADDED) :]) != ADDED:
        wrong.append(f"not what is added: {kept}")
    if [name.lower() for name, _ in ours] != ([message.framing] if message.framing else []):
        wrong.append(f"framed by {ours}, meant was {message.framing!r}")
    return wrong


def judge_answers(
    hearing: Hearing, reading: Reading, places: dict[int, int], *, was_reset: bool
) -> list[str]:
    """Say what is wrong about the answers to a caller that stayed to hear them."""
    wrong = []
    answers = hearing.answers
    if len(answers) > len(reading.messages) + 1:
        wrong.append("more answers than requests")
    # Broken input in the packet of a HEAD is refused as one, with a body that nobody reads.
    surplus = hearing.rest and not (answers and answers[-1].values(b"connection") == [b"close"])
    if not was_reset and (surplus or not all(each.is_whole for each in answers)):
        wrong.append(f"a cut answer on a connection that ends in good order: {answers}")
    for place, answer in enumerate(answers):
        number = answer.values(b"x-n")
        if number and places.get(int(number[0])) != place:
            wrong.append(f"answer {place} belongs to another request: {answer}")
        if answer.interim > 1 or (answer.interim and not _waits(reading, place)):
            wrong.append("told to go on without having asked")
        if answer.values(b"x-icr-proxy-error") == [b"internal"]:
            wrong.append("internal error")
        if answer.status == 400 and b"close" not in answer.values(b"connection"):
            closes = answer.values(b"x-icr-proxy-error") and place >= len(reading.messages)
            wrong += ["a broken request, and the connection goes on"] if closes else []
    return wrong


def _waits(reading: Reading, place: int) -> bool:
    if place >= len(reading.messages):
        return b"100-continue" in reading.rest.lower()
    return reading.messages[place].values(b"expect") != []


def judge_plain(hearing: Hearing, reading: Reading) -> list[str]:
    """Check that what is plain was served: a proxy that refuses everything would be no use."""
    answers = hearing.answers
    wanted = len(reading.messages)
    if answers and answers[-1].status == 413 and answers[-1].values(b"connection") == [b"close"]:
        wanted = len(answers)  # the API had enough in the middle of a body
    served = [answer.values(b"x-n") != [] or answer.status == 413 for answer in answers]
    if len(served) == wanted and all(served):
        return []
    return [f"a plain request was not served: {answers}"]

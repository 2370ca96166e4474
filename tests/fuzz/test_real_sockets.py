"""The same cases and the same judge without the simulation: a real proxy, real sockets, at once.

All callers talk at the same time, each for installations of its own, so that a token tells whose
request it is.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from icr_proxy.config.inbound_models import LimitsConfig
from tests.fuzz.grammar import Case, make_case
from tests.fuzz.hearing import hear
from tests.fuzz.inbound import judge_answers, match
from tests.fuzz.recorder import Api
from tests.fuzz.reference import read_strictly
from tests.fuzz.stage import UNEXPECTED
from tests.support.app_fixture import RunningProxy, config_for, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CASES = 120
FIRST = 5_000_000  # numbers that the other tests do not use
SECONDS = 60.0  # in which all is over, on however busy a machine
LIMITS = LimitsConfig(idle_timeout=0.3, body_timeout=0.3)
RESET = struct.pack("ii", 1, 0)


def case_of(number: int) -> Case:
    """Draw a case whose installations are its own, in names of the same length."""
    case = make_case(Random(FIRST + number))
    case.pieces = [case.stream.replace(b"inst-", b"%05d" % number)]
    return case


@asynccontextmanager
async def before(api: Api) -> AsyncIterator[RunningProxy]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(api.connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(config_for(f"http://127.0.0.1:{port}", limits=LIMITS)) as proxy:
        yield proxy
    server.close()


async def heard_by(case: Case, *, port: int, random: Random) -> tuple[bytes, bool]:
    """Say it in pieces; give what came back, and whether the connection broke."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()
    try:
        stream, at = case.stream, 0
        while at < len(stream):
            size = random.choice((1, 7, 60, 1000))
            writer.write(stream[at : at + size])
            await writer.drain()
            at += size
        if case.ending == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if case.ending in ("reset", "close"):
            return b"", True
        while data := await reader.read(65536):
            heard += data
    except ConnectionError:
        return bytes(heard), True
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return bytes(heard), False


def judge(number: int, case: Case, api: Api, heard: tuple[bytes, bool]) -> list[str]:
    wrong: list[str] = []
    mine = [
        seen for seen in api.requests if (seen.installation or b"").startswith(b"%05d" % number)
    ]
    reading = read_strictly(case.stream)
    places = match(mine, reading.messages, wrong)
    methods = [message.method for message in reading.messages]
    hearing = hear(heard[0], methods=[*methods, reading.rest.partition(b" ")[0]])
    return wrong + judge_answers(hearing, reading, places, was_reset=heard[1])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_real_sockets_carry_nothing_but_what_was_meant() -> None:
    before_all = descriptors()
    api = Api(random=Random(1))
    cases = [case_of(number) for number in range(CASES)]
    async with before(api) as proxy:
        api.host = proxy.app.config.upstream.base_url.removeprefix("http://").encode()
        async with asyncio.timeout(SECONDS):
            heard = await asyncio.gather(
                *(heard_by(case, port=proxy.port, random=Random(n)) for n, case in enumerate(cases))
            )
            while proxy.app.inbound.listeners[0].connections:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)  # those that left early are noticed a moment later

        assert proxy.app.inbound.in_flight.count == 0
        assert proxy.app.outbound.pool.active == 0
        assert [line for line in proxy.log() if line["event"] in UNEXPECTED] == []
    for number, case in enumerate(cases):
        assert judge(number, case, api, heard[number]) == [], f"case {number}: {case}"
    assert all(seen.installation is not None for seen in api.requests)
    assert api.wrong == []
    assert len(api.requests) > CASES // 4
    await asyncio.sleep(0)
    assert descriptors() <= before_all

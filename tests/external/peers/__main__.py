"""Asks real servers how they understand what the proxy sends: `python -m tests.external.peers`.

Each stream of the corpus goes to nginx, Node and Go twice, directly and through the proxy. Whatever
came through must be understood as what the strict reading says that the caller meant; directly,
many are understood differently, which is why the proxy is there. Ends with 1 if anything is wrong.

Needs nginx, node and the Go compiler: `--go PATH`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.config.models import CircuitConfig
from tests.external.peers import servers
from tests.external.peers.corpus import Case, cases
from tests.fuzz.reference import Message, read_strictly
from tests.support.app_fixture import config_for, running

if TYPE_CHECKING:
    from tests.external.peers.servers import Server, Understood

DIRECT_SECONDS = (
    1.0  # of a caller's patience with a server that waits for more; nothing hangs on it
)
PROXY_SECONDS = 60.0  # with the proxy, which ends every connection by itself
IDLE_SECONDS = 2.0  # of the proxy's with such a caller
SENTINEL = b"/sentinel/%d"
NUMBER = re.compile(rb"(?:http://[^/]*)?/(\d\d\d)/")
SERVED = 200
LEAST_SERVED = 60  # cases of which something must come through, or the test tests nothing


@dataclass(slots=True)
class Result:
    """What came of the corpus before one server."""

    server: str
    cases: int = 0
    forwarded: int = 0
    """Requests that came through."""
    refused: int = 0
    """Requests that the server did not want."""
    served: int = 0
    """Cases of which at least one did."""
    disputed: int = 0
    """Cases that the server, asked directly, reads differently from the strict reading."""
    wrong: list[str] = field(default_factory=list)


async def say(stream: bytes, *, port: int, patience: float) -> None:
    """Be a caller: send, and hear until the connection ends or patience does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError, TimeoutError):
        writer.write(stream)
        await writer.drain()
        async with asyncio.timeout(patience):
            while await reader.read(65536):
                pass
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def understood(
    server: Server, corpus: list[Case], *, port: int, number: int, patience: float
) -> dict[int, list[Understood]]:
    """Send the whole corpus to a port; give by case what the server understood."""
    await asyncio.gather(*(say(case.stream, port=port, patience=patience) for case in corpus))
    target = SENTINEL % number
    head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target
    await say(head, port=server.port, patience=PROXY_SECONDS)
    by_case: dict[int, list[Understood]] = {}
    for each in await asyncio.to_thread(server.take, until=target):
        found = NUMBER.match(each.target)
        by_case.setdefault(int(found[1]) if found else -1, []).append(each)
    return by_case


def compare(server: Server, seen: list[Understood], meant: list[Message]) -> list[str]:
    """Say what came through that nobody meant, or that was understood differently."""
    place = 0
    for each in seen:
        while place < len(meant) and not is_same(each, meant[place]):
            place += 1
        if place == len(meant):
            return [f"understood {each}, meant was {meant}"]
        wrong = compare_headers(server, each, meant[place])
        if wrong:
            return wrong
        place += 1
    return []


def is_same(each: Understood, message: Message) -> bool:
    """Whether a request was understood as it was meant."""
    target = re.sub(rb"^http://[^/]*", b"", message.target)
    return (each.method, each.target, each.body) == (message.method, target, message.body)


def compare_headers(server: Server, each: Understood, message: Message) -> list[str]:
    """Say which headers arrived with other values."""
    wrong = []
    if each.values(b"authorization") != [b"Bearer crs_peer"]:
        wrong.append(f"{each}: not the one credential")
    for name in (b"x-a", b"content-type", b"cookie"):
        if not server.knows_all_headers and len(message.values(name)) != 1:
            continue  # nginx logs the first
        if name not in message.options and each.values(name) != message.values(name):
            wrong.append(f"{each}: {name.decode()} should be {message.values(name)}")
    return wrong


async def examine(server: Server, corpus: list[Case]) -> Result:
    """Play the corpus before one server, with and without the proxy."""
    result = Result(server.name, cases=len(corpus))
    directly = await understood(server, corpus, port=server.port, number=1, patience=DIRECT_SECONDS)
    config = config_for(
        f"http://127.0.0.1:{server.port}",
        upstream={"circuit": CircuitConfig(failures=0)},
        limits=LimitsConfig(
            idle_timeout=IDLE_SECONDS, body_timeout=IDLE_SECONDS, head_timeout=IDLE_SECONDS
        ),
    )
    async with running(config) as proxy:
        through = await understood(
            server, corpus, port=proxy.port, number=2, patience=PROXY_SECONDS
        )
        sent = [line for line in proxy.log("request.done") if line.get("origin") == "upstream"]
    for each in through.pop(-1, []):
        result.wrong.append(f"{server.name}: nobody sent {each}")
    for number, case in enumerate(corpus):
        meant = read_strictly(case.stream).messages
        wrong = compare(server, through.get(number, []), meant)
        result.wrong += [f"{server.name}, case {case.name}: {each}" for each in wrong]
        result.disputed += [
            (each.method, each.target, each.body) for each in directly.get(number, [])
        ] != [(each.method, each.target, each.body) for each in meant]
        if case.name[4:].startswith("plain") and not through.get(number):
            result.wrong.append(f"{server.name}, case {case.name}: it was not served")
    result.served = len(through)
    result.forwarded = sum(map(len, through.values()))
    result.refused = len([line for line in sent if line["status"] != SERVED])
    if len(sent) != result.forwarded + result.refused:
        result.wrong.append(f"{server.name} has {result.forwarded}, the proxy's log {len(sent)}")
    if result.served < LEAST_SERVED:
        result.wrong.append(f"{server.name}: next to nothing was served")
    return result


def main() -> int:
    """Start everything, and say how many cases ran against which server."""
    parser = argparse.ArgumentParser(prog="python -m tests.external.peers")
    parser.add_argument("--go", required=True, help="the Go compiler")
    options = parser.parse_args()
    corpus = cases()
    failed = 0
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for server in (
            stack.enter_context(servers.nginx(work)),
            stack.enter_context(servers.node(work)),
            stack.enter_context(servers.go(work, compiler=options.go)),
        ):
            result = asyncio.run(examine(server, corpus))
            failed += len(result.wrong)
            for each in result.wrong:
                say_line(f"WRONG: {each}")
            say_line(
                f"{result.server}: {result.cases} cases, {result.forwarded} requests through the "
                f"proxy from {result.served} of them, {result.refused} refused by the server; "
                f"read differently without the proxy: {result.disputed}; wrong: {len(result.wrong)}"
            )
    return 1 if failed else 0


def say_line(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201  # a program for a terminal


if __name__ == "__main__":
    sys.exit(main())

"""The event stream as a conversation, on real sockets and in front of a real proxy."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.admin.console_feed import SUBSCRIBERS_MOST
from icr_proxy.audit.chain import ChainHead
from icr_proxy.audit.writer_thread import WriteResult
from icr_proxy.config.models import AuditConfig
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import (
    RunningProxy,
    call,
    config_for,
    proxy_before,
    request_head,
    running,
)
from tests.support.audit_fixture import records_in
from tests.support.fakes import outcome

GUARD_SECONDS = 20.0
ASK = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


def admin_port(proxy: RunningProxy) -> int:
    return int(proxy.app.admin.address.rpartition(":")[2])


class Console:
    """An open stream; gives one event after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self._events: list[tuple[str, dict[str, Any]]] = []

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(GUARD_SECONDS):
            while not self._events:
                await self._read()
        return self._events.pop(0)

    async def until(self, wanted: str) -> dict[str, Any]:
        while True:
            name, told = await self.next()
            if name == wanted:
                return told

    async def _read(self) -> None:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = (await self.reader.readexactly(size + 2))[:-2]
        if not size:
            raise EOFError
        for block in data.split(b"\n\n")[:-1]:
            if not block.startswith(b":"):
                name, text = block.split(b"\n")
                self._events.append((name.decode()[7:], json.loads(text[6:])))


@asynccontextmanager
async def opened(
    proxy: RunningProxy, *, ask: bytes = ASK, buffer: int = 0
) -> AsyncIterator[Console]:
    raw = socket.socket()
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", admin_port(proxy)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096 if buffer else 1 << 22)
    console = Console(reader, writer)
    try:
        writer.write(ask)
        async with asyncio.timeout(GUARD_SECONDS):
            console.head = await reader.readuntil(b"\r\n\r\n")
        yield console
    finally:
        writer.transport.abort()


async def use(proxy: RunningProxy, emulator: Emulator, **parts: Any) -> int:
    tag = next(iter(emulator.world.installations))
    return (await call(proxy.port, request_head(**{"tag": tag} | parts))).status


async def test_a_request_is_seen_a_moment_later(proxy: RunningProxy, emulator: Emulator) -> None:
    async with opened(proxy) as console:
        first, _ = await console.next()
        await use(proxy, emulator, target="/projects?secret=planted", extra="X-Mine: planted\r\n")

        frame = await console.until("frame")

    assert console.head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert b"Cache-Control: no-store\r\n" in console.head
    assert b"Content-Security-Policy: default-src 'none';" in console.head
    assert first == "snapshot"
    (row,) = frame["rows"]
    assert (row["path"], row["status"], row["operation"]) == ("/projects", 200, "projects.list")
    assert "-x-icr-installation-id" in row["header_edits"]
    assert "+authorization" in row["header_edits"]
    assert "planted" not in json.dumps(frame)
    assert row["token"] == proxy.log("request.done")[0]["token"]


async def test_a_row_gets_the_number_of_its_audit_record_when_there_is_one(tmp_path: Path) -> None:
    audit = AuditConfig(directory=tmp_path)
    async with Emulator() as emulator, proxy_before(emulator, audit=audit) as proxy:
        async with opened(proxy) as console:
            await use(proxy, emulator, target="/v1/retire", method="POST")
            told: dict[str, int] = {}
            rows: list[dict[str, Any]] = []
            while not told:
                kind, members = await console.next()
                rows += members["rows"] if kind == "frame" else []
                told = {row["request_id"]: row["audit_seq"] for row in rows if row["audit_seq"]}
                told |= {name: seq for name, _, seq in members.get("audited", [])}
        async with opened(proxy) as later:
            _, snapshot = await later.next()

    (row,), (again,) = rows, snapshot["rows"]
    written = {
        record["kind"]: record["seq"]
        for record in records_in(tmp_path)
        if record.get("request_id") == row["request_id"]
    }
    assert written == {"intent": row["intent_seq"], "request": told[row["request_id"]]}
    assert (again["intent_seq"], again["audit_seq"]) == (written["intent"], written["request"])


async def test_a_console_that_is_open_hears_of_records_that_came_later(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    """The trail of this proxy is played by the test, so that it can be slow."""
    feed = proxy.app.observers.feed
    assert feed is not None
    feed.landed(WriteResult(entries=[outcome()], last=1, head=ChainHead(), segment=None))
    async with opened(proxy) as console:
        await use(proxy, emulator)
        (row,) = (await console.until("frame"))["rows"]
        (seen,) = feed._recent
        feed.landed(WriteResult(entries=[seen], last=2, head=ChainHead(), segment=None))

        frame = await console.until("frame")

    assert row["audit_seq"] is None
    assert frame["rows"] == []
    assert frame["audited"] == [[row["request_id"], row["started_at"], 2]]


async def test_no_token_is_ever_in_the_stream(proxy: RunningProxy, emulator: Emulator) -> None:
    async with opened(proxy) as console:
        await console.until("snapshot")
        await use(proxy, emulator)
        told = json.dumps(await console.until("frame"))

    assert emulator.world.tokens
    assert not any(token in told for token in emulator.world.tokens)
    assert "crs_" not in told


async def test_header_edits_cost_nothing_while_nobody_looks(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    await use(proxy, emulator)

    async with opened(proxy) as console:
        (row,) = (await console.until("snapshot"))["rows"]

    assert row["header_edits"] == []


async def test_a_slow_reader_is_told_how_much_it_missed(proxy: RunningProxy) -> None:
    """It stops reading; what does not fit into sockets and ring is lost, for it alone."""
    feed = proxy.app.observers.feed
    assert feed is not None
    async with opened(proxy, buffer=4096) as slow, opened(proxy) as quick:
        await quick.until("snapshot")
        sent = 0
        while not any(each._ring.lost for each in feed._subscriptions):
            for number in range(100):
                facts = {"path": "/" + "x" * 500, "request_id": f"{number}"}
                feed.read_all([outcome(started_at=feed._now(), **facts)])
            sent += 100
            feed._flush()
            await asyncio.sleep(0)
            while quick._events or quick.reader._buffer:  # type: ignore[attr-defined]
                await quick.next()
        missed = await slow.until("missed")

    assert 0 < missed["requests"] <= sent
    assert missed["frames"] > 0


async def test_a_console_that_has_gone_is_forgotten(proxy: RunningProxy) -> None:
    feed = proxy.app.observers.feed
    assert feed is not None
    async with opened(proxy):
        assert feed.watchers

    async with asyncio.timeout(GUARD_SECONDS):
        while feed.watchers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_it_ends_when_the_proxy_drains(emulator: Emulator) -> None:
    config = config_for(emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem)
    async with running(config) as proxy, opened(proxy) as console:
        await console.until("snapshot")
        draining = asyncio.ensure_future(proxy.app.drain())

        assert await console.until("end") == {"reason": "draining"}
        with pytest.raises(EOFError):
            await console.next()
        assert await console.reader.read() == b""
        assert await draining
        refused = await call(admin_port(proxy), ASK)

    assert refused.status == 503
    assert json.loads(refused.body)["code"] == "draining"


async def test_a_proxy_stops_at_once_however_many_consoles_are_open(emulator: Emulator) -> None:
    config = config_for(emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem)
    async with running(config) as proxy, opened(proxy) as one, opened(proxy) as two:
        await one.until("snapshot")
        await two.until("snapshot")

        async with asyncio.timeout(GUARD_SECONDS):
            await proxy.app.stop()


async def test_there_are_only_so_many(proxy: RunningProxy) -> None:
    consoles = [opened(proxy) for _ in range(SUBSCRIBERS_MOST)]
    for each in consoles:
        await (await each.__aenter__()).until("snapshot")

    refused = await call(admin_port(proxy), ASK)

    for each in consoles:
        await each.__aexit__(None, None, None)
    assert refused.status == 503
    assert json.loads(refused.body)["code"] == "overloaded"


async def test_head_opens_nothing(proxy: RunningProxy) -> None:
    answer = await call(admin_port(proxy), ASK.replace(b"GET", b"HEAD"))

    assert answer.status == 200
    assert answer.values(b"Content-Type") == [b"text/event-stream"]
    assert proxy.app.observers.feed is not None
    assert not proxy.app.observers.feed.watchers


async def test_http_1_0_gets_its_events_until_the_connection_ends(proxy: RunningProxy) -> None:
    async with opened(proxy, ask=b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n") as console:
        line = await console.reader.readuntil(b"\n")

    assert b"Transfer-Encoding" not in console.head
    assert line == b"event: snapshot\n"


async def test_a_quiet_stream_has_a_heart(
    proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icr_proxy.admin.console_pages.HEARTBEAT_SECONDS", 0.05)
    async with opened(proxy) as console:
        await console.until("snapshot")
        size = int(await console.reader.readuntil(b"\r\n"), 16)

        assert await console.reader.readexactly(size) == b": still here\n\n"

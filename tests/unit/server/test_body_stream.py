"""The part of a body that its handler has not read yet."""

from __future__ import annotations

import asyncio

import pytest

from icr_proxy.errors import BadRequestError, CallerGoneError
from icr_proxy.server.body_stream import BodyStream


def stream() -> BodyStream:
    return BodyStream(lambda: None)


async def test_all_unread_bytes_are_read_at_once() -> None:
    body = stream()
    body.feed(b"ab", is_whole=False)
    body.feed(b"c", is_whole=True)

    assert body.unread == 3
    assert [await body.read(), await body.read()] == [b"abc", b""]
    assert body.unread == 0


@pytest.mark.parametrize("data", [b"a", b""])
async def test_a_reader_waits_for_more(data: bytes) -> None:
    body = stream()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(body.read(), name="reader")
        await asyncio.sleep(0)
        body.feed(b"", is_whole=False)
        await asyncio.sleep(0)
        assert not reading.done()
        body.feed(data, is_whole=True)

    assert reading.result() == data


async def test_an_error_counts_before_the_bytes_in_front_of_it() -> None:
    """Half a body would look like a whole one."""
    body = stream()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_error(body), name="reader")
        await asyncio.sleep(0)
        body.feed(b"half", is_whole=False)
        body.fail(lambda: BadRequestError("malformed"))
        body.fail(lambda: CallerGoneError("too late"))

    assert isinstance(reading.result(), BadRequestError)


async def read_error(body: BodyStream) -> Exception | None:
    try:
        await body.read()
    except (BadRequestError, CallerGoneError) as error:
        return error
    return None


async def test_the_connection_is_told_of_each_read() -> None:
    reads = []
    body = BodyStream(lambda: reads.append(body.unread))
    body.feed(b"ab", is_whole=True)

    await body.read()

    assert reads == [0]

"""An answer that was written and never read: the tool that asked will try again."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.support.app_fixture import call, read_answer, request_head
from tests.unit.forwarding.test_duplicate_guard import Stage, post, stage, until

if TYPE_CHECKING:
    from collections.abc import Callable


def served(scene: Stage, number: int) -> bool:
    return len(scene.proxy.log("request.done")) >= number


async def answered(scene: Stage, *requests: bytes) -> socket.socket:
    """Give the connection of a caller that has sent these one by one and read no answer yet."""
    loop = asyncio.get_running_loop()
    caller = socket.socket()
    caller.setblocking(False)
    await loop.sock_connect(caller, ("127.0.0.1", scene.proxy.port))
    for request in requests:
        number = len(scene.proxy.log("request.done")) + 1
        await loop.sock_sendall(caller, request)
        await until(partial(served, scene, number))
    return caller


async def an_answer_left_unread() -> None:
    async with stage() as scene:
        (await answered(scene, post())).close()
        second = await scene.write()

        assert second.problem["code"] == "duplicate-suspected"
        assert scene.writes == 1
        assert scene.counted("left-open") == 1


async def an_answer_left_unread_some_time_ago() -> None:
    async with stage() as scene:
        (await answered(scene, post())).close()
        await until(lambda: scene.counted("left-open"))
        scene.clock.at += 59
        refused = await scene.write()
        scene.clock.at += 1
        sent = await scene.write()

        assert refused.values(b"Retry-After") == [b"1"]
        assert sent.status == 200


async def an_answer_that_was_read() -> None:
    async with stage() as scene:
        caller = await answered(scene, post())
        assert caller.recv(10_000).endswith(b"done")
        caller.close()
        second = await scene.write()

        assert second.status == 200
        assert scene.counted("left-open") == 0


async def a_reset_after_the_window() -> None:
    async with stage() as scene:
        caller = await answered(scene, post())
        scene.clock.at += 60
        caller.close()
        second = await scene.write()

        assert second.status == 200


async def a_reset_that_is_about_a_later_answer() -> None:
    async with stage() as scene:
        caller = await answered(scene, post(), request_head())
        caller.close()
        await until(lambda: scene.proxy.app.inbound.listeners[0].connections == 0)
        second = await scene.write()

        assert second.status == 200


async def a_reset_after_the_same_was_done_again() -> None:
    """It was meant twice, and the second time is what counts from then on."""
    async with stage() as scene:
        caller = await answered(scene, post())
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post())
        second = await read_answer(reader)
        caller.close()
        await until(lambda: scene.proxy.app.inbound.listeners[0].connections == 1)
        third = await call(scene.proxy.port, post())
        writer.close()

        assert (second.status, third.status) == (200, 200)


STORIES = (
    an_answer_left_unread,
    an_answer_left_unread_some_time_ago,
    an_answer_that_was_read,
    a_reset_after_the_window,
    a_reset_that_is_about_a_later_answer,
    a_reset_after_the_same_was_done_again,
)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_only_an_answer_left_unread_reopens_the_question(
    story: Callable[[], object], run: Callable[[object], None]
) -> None:
    run(story())


async def test_no_more_is_remembered_than_there_are_connections() -> None:
    async with stage() as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        receipts = scene.proxy.app.inbound.handlers[0].guard.receipts
        for number in range(20):
            writer.write(post(b"%d" % number))
            await read_answer(reader)
            assert len(receipts) == 1
        writer.close()
        await until(lambda: not len(receipts))

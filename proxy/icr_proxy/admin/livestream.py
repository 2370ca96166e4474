"""Server-sent events on the admin port: one answer that lasts until the console is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.errors import CallerError
from icr_proxy.server.response import PHRASES, Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icr_proxy.admin.console_feed import Feed, Subscription
    from icr_proxy.server.request import Request

OK = 200
HEARTBEAT_SECONDS = 10.0  # so that both ends notice when the other has vanished
HEARTBEAT = b": still here\n\n"
SLOW_SECONDS = 30.0  # a console that takes nothing for so long is given up


async def send_events(
    request: Request,
    feed: Feed,
    *,
    headers: Sequence[tuple[bytes, bytes]],
) -> Answer:
    """Answer with everything that happens from now on.

    Raises:
        OverloadedError: too many consoles are open.
        DrainingError: the proxy is stopping.
    """
    answer = Answer(request, timeout=SLOW_SECONDS, closing=lambda: True)
    head = [(b"Content-Type", b"text/event-stream"), *headers]
    if request.method == "HEAD":
        answer.begin(status=OK, reason=PHRASES[OK], headers=head)
        await answer.end()
        return answer
    with feed.subscription() as (snapshot, subscription):
        answer.begin(status=OK, reason=PHRASES[OK], headers=head)
        try:
            await answer.write(snapshot)
            while (data := await _next(subscription)) is not None:
                await answer.write(data)
            await answer.end()
        except CallerError:
            answer.abort()  # nobody is there, or nobody reads
    return answer


async def _next(subscription: Subscription) -> bytes | None:
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await subscription.next()
    except TimeoutError:
        return HEARTBEAT

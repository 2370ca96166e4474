"""Credits are money: whatever goes wrong on the way, a retirement happens once or is known not to.

The emulator really destroys credits, and remembers each time it did, so that a request sent twice
is visible. The comment of a retirement tells which request it came from.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from icr_proxy.emulator.registry.entities import Account
from icr_proxy.emulator.settings import Fault
from tests.support.app_fixture import read_answer, request_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RunningProxy

RETIREMENTS = 2000
CALLERS = 10
# A caller hears of a broken connection as one of these.
BROKEN = (asyncio.IncompleteReadError, ConnectionError)
# What may go wrong with a request, before the API has acted or after.
FAULTS = (
    Fault(kind="status", status=503, when="before"),
    Fault(kind="status", status=500, when="after"),
    Fault(kind="reset", when="head"),
    Fault(kind="reset", when="before"),
    Fault(kind="reset", when="after"),
    Fault(kind="truncated", when="after"),
    Fault(kind="empty", when="after"),
    Fault(kind="status", status=401, body="", when="head"),
)


class Retirer:
    """Retires one credit at a time through the proxy and keeps what it was told."""

    def __init__(self, proxy: RunningProxy | int, emulator: Emulator) -> None:
        self.port = proxy if isinstance(proxy, int) else proxy.port
        self._installation = next(iter(emulator.world.installations.values()))
        held = emulator.world.book.holdings(
            Account(self._installation.organization.id, "inventory")
        )
        self._credit = max(held, key=lambda credit: held[credit])
        self.told: dict[str, int] = {}
        """Status by comment; 0 where the connection broke."""

    def request(self, comment: str) -> bytes:
        body = json.dumps(
            {
                "fromId": self._installation.organization.id,
                "reason": "offsetting",
                "beneficiaryName": "Somebody",
                "comment": comment,
                "credit": {"id": self._credit, "amount": 1},
            }
        )
        extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = request_head("POST", "/v1/retire", tag=self._installation.id, extra=extra)
        return head + body.encode()

    async def retire(self, comments: list[str], *, before_each: Callable[[str], None]) -> None:
        """Retire one after the other on a connection that is opened again when it breaks."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for comment in comments:
            before_each(comment)
            try:
                writer.write(self.request(comment))
                answer = await read_answer(reader)
                self.told[comment] = answer.status
                alive = answer.values(b"Connection") != [b"close"]
            except BROKEN:
                self.told[comment] = 0
                alive = False
            if not alive:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()


def done(emulator: Emulator) -> Counter[str]:
    """Count by comment how often the API has really retired."""
    comments = (item.purpose.comment or "" for item in emulator.world.retirements.values())
    return Counter(comment for comment in comments if comment.startswith("r-"))


async def test_two_thousand_retirements_under_revocations_happen_once_each(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    retirer = Retirer(proxy, emulator)
    installation = next(iter(emulator.world.installations))

    def revoke_sometimes(comment: str) -> None:
        if int(comment[2:]) % 500 == 250:
            emulator.world.revoke_all(installation)

    comments = [f"r-{n}" for n in range(RETIREMENTS)]
    await asyncio.gather(
        *(retirer.retire(comments[at::CALLERS], before_each=revoke_sometimes) for at in range(10))
    )

    assert Counter(retirer.told.values()) == {200: RETIREMENTS}
    assert done(emulator) == dict.fromkeys(comments, 1)
    assert emulator.world.book.totals() == dict(emulator.world.book.issued)
    assert proxy.metric("replays_total", result="healed") > 0


@pytest.mark.parametrize("seed", range(4))
async def test_a_retirement_under_faults_happens_at_most_once_and_never_unknown_to_be_done(
    proxy: RunningProxy, emulator: Emulator, seed: int
) -> None:
    retirer = Retirer(proxy, emulator)
    chance = random.Random(seed)

    def fail_sometimes(_comment: str) -> None:
        if chance.random() < 0.5:
            emulator.world.faults.requests.append(chance.choice(FAULTS))

    comments = [f"r-{n}" for n in range(500)]
    await asyncio.gather(
        *(retirer.retire(comments[at::CALLERS], before_each=fail_sometimes) for at in range(10))
    )

    times = done(emulator)
    told_done = {comment for comment, status in retirer.told.items() if status == 200}
    assert set(retirer.told) == set(comments)
    assert max(times.values()) == 1
    assert told_done <= set(times)
    # A refusal that the proxy makes before sending must mean that nothing happened.
    assert not {c for c, status in retirer.told.items() if status in (400, 403, 503)} & set(times)
    assert emulator.world.book.totals() == dict(emulator.world.book.issued)

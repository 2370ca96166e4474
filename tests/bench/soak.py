"""A soak of the credentials: everything that can go wrong with tokens, for as long as one likes.

Twenty installations whose tokens live for two seconds, while the API revokes tokens at random,
fails one mint in ten, is out for three seconds now and then, has its clock set by two minutes, and
the app's key is replaced. Callers must notice nothing but a delay.

    .venv/bin/python -m tests.bench.soak --seconds 600

`make test` runs it for a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.config.models import AppConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings, Fault
from tests.support.app_fixture import (
    RunningProxy,
    config_for,
    pem_of,
    read_answer,
    request_head,
    running,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from icr_proxy.emulator.registry.entities import Installation

    Happening = Callable[[], Awaitable[None]]

INSTALLATIONS = 20
LIFETIME = 2.0  # seconds
CALLERS_EACH = 2
PAUSE = 0.03  # seconds between two requests of a caller
TICK = 0.05  # seconds between two chances for something to go wrong
OUTAGE = 3.0  # seconds
CALM = 2.0  # seconds between two blows to the same token
FAILING_SHARE = 0.1  # of mints
FAULT = Fault(kind="status", status=503)


@dataclass
class Report:
    """What came of it."""

    seconds: float = 0.0
    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """`200`, or status and code of a refusal."""
    slowest: float = 0.0
    mints: int = 0
    ratio: float = 0.0
    """Mints by what lifetimes and revocations demand at the least; the worst installation's."""
    revocations: int = 0
    shifts: int = 0
    outages: int = 0
    failed_mints: int = 0

    def as_json(self) -> str:
        return json.dumps(vars(self), indent=2)


async def soak(*, seconds: float, seed: int = 1) -> Report:
    """Run it and report."""
    report = Report(seconds=seconds)
    settings = EmulatorSettings(installations=INSTALLATIONS, token_lifetime=LIFETIME)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Emulator(settings, private_keys=[_new_key()]) as emulator,
            _proxy(emulator, Path(folder) / "app.pem") as proxy,
        ):
            deadline = time.monotonic() + seconds
            chaos = Chaos(emulator, Path(folder) / "app.pem", report, random.Random(seed))
            trouble = asyncio.ensure_future(chaos.run(deadline))
            await asyncio.gather(
                *(
                    _caller(proxy, one, deadline, report)
                    for one in emulator.world.installations.values()
                    for _ in range(CALLERS_EACH)
                )
            )
            await trouble
            mints = emulator.world.mints
            report.mints = sum(mints.values())
            report.ratio = max(mints[each] / chaos.least_mints(each) for each in mints)
            report.failed_mints = sum(emulator.world.mint_attempts.values()) - report.mints
    return report


async def _caller(proxy: RunningProxy, one: Installation, deadline: float, report: Report) -> None:
    """Ask for one installation again and again; every answer counts."""
    request = request_head(target=f"/organizations/{one.organization.id}/inventory", tag=one.id)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    while (began := time.monotonic()) < deadline:
        writer.write(request)
        answer = await read_answer(reader)
        report.requests += 1
        report.slowest = max(report.slowest, time.monotonic() - began)
        code = b"".join(answer.values(b"X-ICR-Proxy-Error")).decode()
        report.statuses[f"{answer.status} {code}".strip()] += 1
        await asyncio.sleep(PAUSE)
    writer.close()


class FailingMints(deque[Fault]):
    """A queue of faults that has one for every tenth mint, or for every one during an outage."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.is_out = False

    def __bool__(self) -> bool:
        return self.is_out or self._chance.random() < FAILING_SHARE

    def popleft(self) -> Fault:
        return FAULT


class Chaos:
    """What goes wrong, and when."""

    def __init__(
        self, emulator: Emulator, key_file: Path, report: Report, chance: random.Random
    ) -> None:
        self._emulator = emulator
        self._world = emulator.world
        self._key_file = key_file
        self._report = report
        self._chance = chance
        self._revoked: Counter[str] = Counter()
        self._calm: dict[str, float] = {}
        self._all_calm_at = 0.0
        self._mints = emulator.world.faults.mints = FailingMints(chance)

    async def run(self, deadline: float) -> None:
        """Make trouble until shortly before the end."""
        began = time.monotonic()
        planned = self._plan(deadline - began)
        while (now := time.monotonic()) < deadline - OUTAGE:
            while planned and planned[0][0] <= now - began:
                await planned.pop(0)[1]()
            if self._chance.random() < 1.0 * TICK:
                soon = bool(planned) and planned[0][0] - (now - began) < CALM
                self._revoke(self._chance.choice(list(self._world.installations)), now, soon=soon)
            await asyncio.sleep(TICK)
        self._report.revocations = self._revoked.total()

    def _revoke(self, victim: str, now: float, *, soon: bool) -> None:
        """Take a token away, unless another blow falls on it: one request heals one of them.

        A request that is refused, given a new token and refused again learns the truth (design).
        """
        if not soon and now - self._calm.get(victim, 0.0) >= CALM and now >= self._all_calm_at:
            self._calm[victim] = now
            self._revoked[victim] += self._world.revoke_all(victim)

    def least_mints(self, installation: str) -> float:
        """Count what one installation needs at the least.

        There are requests all the time, so it needs a token at every moment that the API issues
        any; each that is lost before its end costs one more.
        """
        served = self._report.seconds - self._report.outages * OUTAGE
        return served / LIFETIME + self._revoked[installation] + self._report.shifts

    def _plan(self, seconds: float) -> list[tuple[float, Happening]]:
        """Spread what happens seldom over the time there is."""
        happenings: list[Happening] = [self._rotate]
        for _ in range(max(1, round(seconds / 30))):
            happenings += [self._outage, self._shift(120.0), self._shift(-120.0)]
        step = (seconds - 2 * OUTAGE) / (len(happenings) + 1)
        return [(step * (at + 1), each) for at, each in enumerate(happenings)]

    async def _outage(self) -> None:
        self._report.outages += 1
        self._mints.is_out = True
        await asyncio.sleep(OUTAGE)
        self._mints.is_out = False

    def _shift(self, seconds: float) -> Happening:
        async def shift() -> None:
            self._report.shifts += 1
            self._all_calm_at = time.monotonic() + CALM
            self._world.shift_clock(seconds)

        return shift

    async def _rotate(self) -> None:
        """Replace the key as an operator does: add the new one, swap the file, delete the old."""
        old = self._world.keys.private_pem
        new = _new_key()
        self._emulator.add_key(new)
        self._key_file.write_text(new)
        self._emulator.delete_key(self._emulator.add_key(old))


@asynccontextmanager
async def _proxy(emulator: Emulator, key_file: Path) -> AsyncIterator[RunningProxy]:
    key_file.write_text(emulator.private_key_pem)  # noqa: ASYNC240  # nothing else runs yet
    config = config_for(
        emulator.base_url,
        app=AppConfig(id=emulator.app_id, private_key_file=key_file),
    )
    async with running(config) as proxy:
        yield proxy


def _new_key() -> str:
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"Soaking for {options.seconds:g} seconds …", flush=True)  # noqa: T201
    print(asyncio.run(soak(seconds=options.seconds, seed=options.seed)).as_json())  # noqa: T201


if __name__ == "__main__":
    main()

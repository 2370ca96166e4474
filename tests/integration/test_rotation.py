"""Keys are changed and clocks are wrong, and nobody who sends a request notices."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.models import AppConfig
from icr_proxy.credentials.signing_key import load_key_file, parse_signing_key
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from tests.support.app_fixture import (
    RunningProxy,
    app_key_pem,
    call,
    config_for,
    request_head,
    running,
)
from tests.unit.credentials.test_key_ring_choice import another_pem, third_pem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

INSTALLATIONS = 12
BODY = json.dumps({"note": "a write, but one that moves nothing"}).encode()


class MountedSecret:
    """A directory of keys as Kubernetes mounts it: links into a folder, swapped as a whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._version = 0

    def write(self, **keys: str) -> None:
        self._version += 1
        folder = self.directory / f"..{self._version}"
        folder.mkdir()
        for name, text in keys.items():
            (folder / f"{name}.pem").write_text(text, encoding="utf-8")
        (self.directory / "..data_tmp").symlink_to(folder.name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")
        for path in self.directory.glob("*.pem"):
            if path.stem not in keys:
                path.unlink()
        for name in keys:
            path = self.directory / f"{name}.pem"
            if not path.is_symlink():
                path.symlink_to(f"..data/{name}.pem")


class Traffic:
    """Callers that never pause, one for each installation."""

    def __init__(self, proxy: RunningProxy, emulator: Emulator) -> None:
        self._port = proxy.port
        self._world = emulator.world
        self._ends = False
        self._more = asyncio.Event()
        self.seen: Counter[str] = Counter()
        """Answers by what they were; a good one is `200`."""
        self._answered: Counter[str] = Counter()

    async def caller(self, installation: str) -> None:
        number = 0
        while not self._ends:
            number += 1
            answer = await call(self._port, self._request(installation, number))
            code = answer.values(b"X-ICR-Proxy-Error")
            self.seen[b" ".join([b"%d" % answer.status, *code]).decode()] += 1
            self._answered[installation] += 1
            self._more.set()

    def _request(self, installation: str, number: int) -> bytes:
        if number % 5:
            organization = self._world.installations[installation].organization.id
            target = f"/organizations/{organization}/inventory"
            return request_head(target=target, tag=installation)
        extra = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
        head = request_head("POST", "/_emulator/echo/x", tag=installation, extra=extra)
        return head + BODY

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let it run until something is so; looks after each answer."""
        while not holds():
            self._more.clear()
            await self._more.wait()

    async def until_all_have_minted(self, *, times: int = 1) -> None:
        """Let it run until each installation has had so many more tokens made.

        Until nothing is on its way any more, either, that was sent before: a request that is
        refused patiently waits a moment, and should meet one change at a time.
        """
        mints, answered = Counter(self._world.mints), Counter(self._answered)
        await self.until(
            lambda: all(
                self._world.mints[each] >= mints[each] + times
                and self._answered[each] >= answered[each] + 2
                for each in self._world.installations
            )
        )

    def end(self) -> None:
        self._ends = True


@asynccontextmanager
async def traffic(proxy: RunningProxy, emulator: Emulator) -> AsyncIterator[Traffic]:
    """Keep callers busy; a failure of the test ends them as well."""
    callers = Traffic(proxy, emulator)
    async with asyncio.TaskGroup() as group:
        for installation in emulator.world.installations:
            group.create_task(callers.caller(installation), name=installation)
        try:
            yield callers
        finally:
            callers.end()


@asynccontextmanager
async def registry(
    *pems: str, token_lifetime: float, bad_jwt_status: int = 401
) -> AsyncIterator[Emulator]:
    settings = EmulatorSettings(
        installations=INSTALLATIONS, token_lifetime=token_lifetime, bad_jwt_status=bad_jwt_status
    )
    async with Emulator(settings, private_keys=pems) as emulator:
        yield emulator


@asynccontextmanager
async def proxy_with_keys(emulator: Emulator, directory: Path) -> AsyncIterator[RunningProxy]:
    app = AppConfig(id=emulator.app_id, private_keys_dir=directory)
    async with running(replace(config_for(emulator.base_url), app=app)) as proxy:
        yield proxy


def states(proxy: RunningProxy, keys: dict[str, str]) -> dict[str, str]:
    """Say how the metrics show each key, by our name for it."""
    (family,) = proxy.app.observers.metrics.signing_key.collect()
    shown = {sample.labels["fingerprint"]: sample.labels["state"] for sample in family.samples}
    names = {
        parse_signing_key(text, source="test").fingerprint: name for name, text in keys.items()
    }
    return {names[fingerprint]: state for fingerprint, state in shown.items()}


async def test_a_change_of_keys_under_load_costs_no_request(tmp_path: Path) -> None:
    keys = {"2025": another_pem(), "2026": app_key_pem(), "2027": third_pem()}
    secret = MountedSecret(tmp_path)
    secret.write(**{name: keys[name] for name in ("2025", "2026")})
    async with registry(keys["2026"], keys["2025"], token_lifetime=1.0) as emulator:
        first, second = emulator.world.keys.active
        async with (
            proxy_with_keys(emulator, tmp_path) as proxy,
            traffic(proxy, emulator) as callers,
        ):
            await callers.until_all_have_minted(times=2)
            shown = [states(proxy, keys)]

            emulator.delete_key(first)
            await callers.until_all_have_minted(times=2)
            shown.append(states(proxy, keys))

            third = emulator.add_key(keys["2027"])
            secret.write(**{name: keys[name] for name in ("2025", "2026", "2027")})
            await callers.until_all_have_minted(times=2)
            shown.append(states(proxy, keys))

            emulator.delete_key(second)
            secret.write(**{"2027": keys["2027"]})
            await callers.until_all_have_minted(times=2)
            shown.append(states(proxy, keys))

    assert set(callers.seen) == {"200"}
    assert callers.seen.total() > 300
    assert shown == [
        {"2026": "active", "2025": "standby"},
        {"2026": "refused", "2025": "active"},
        {"2027": "active", "2026": "refused", "2025": "standby"},
        {"2027": "active"},
    ]
    assert list(emulator.world.keys.active) == [third]
    assert proxy.metric("token_mints_total", kind="installation", result="ok") >= 8 * INSTALLATIONS
    assert proxy.metric("token_mints_total", kind="installation", result="app-key-refused") == 0
    assert len(proxy.log("key.only_old_works")) == 1
    assert len(proxy.log("key.newest_works")) == 1
    assert len(proxy.log("key.loaded")) == 3
    assert proxy.log("key.rejected") == proxy.log("token.mint_failed") == []


async def test_a_key_that_is_here_before_the_registry_has_it_costs_no_request(
    tmp_path: Path,
) -> None:
    keys = {"2026": app_key_pem(), "2027": another_pem()}
    secret = MountedSecret(tmp_path)
    secret.write(**keys)
    async with (
        registry(keys["2026"], token_lifetime=1.0) as emulator,
        proxy_with_keys(emulator, tmp_path) as proxy,
        traffic(proxy, emulator) as callers,
    ):
        await callers.until_all_have_minted(times=3)

    assert set(callers.seen) == {"200"}
    assert states(proxy, keys) == {"2027": "refused", "2026": "active"}
    # It was tried once by whoever minted at the start, and then left alone.
    assert emulator.world.denied["jwt-signature"] <= INSTALLATIONS
    (alarm,) = proxy.log("key.only_old_works")
    assert alarm["newest"] == load_key_file(tmp_path / "2027.pem").fingerprint


@pytest.mark.parametrize("bad_jwt_status", [401, 403])
async def test_a_clock_that_jumps_under_load_costs_no_request(
    tmp_path: Path, bad_jwt_status: int
) -> None:
    """The API's clock goes 2 and 20 minutes off, both ways, and right again."""
    MountedSecret(tmp_path).write(only=app_key_pem())
    async with registry(
        app_key_pem(), token_lifetime=30.0, bad_jwt_status=bad_jwt_status
    ) as emulator:
        world = emulator.world
        async with (
            proxy_with_keys(emulator, tmp_path) as proxy,
            traffic(proxy, emulator) as callers,
        ):
            await callers.until_all_have_minted()
            for off in (120.0, -120.0, 1200.0, -1200.0):
                world.shift_clock(off - world.clock.shift)
                # Going back revives tokens that had expired, so that nothing would be minted.
                for installation in world.installations:
                    world.revoke_all(installation)
                await callers.until_all_have_minted()
                assert proxy.metric("clock_skew_seconds") == pytest.approx(off, abs=2)

    assert set(callers.seen) == {"200"}
    assert callers.seen.total() > 60
    assert proxy.metric("token_mints_total", kind="installation", result="app-key-refused") == 0
    assert len(proxy.log("clock.skewed")) == 1
    assert proxy.log("token.mint_failed") == []

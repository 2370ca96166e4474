"""The life of one proxy inside a process; `tests/integration/test_life.py` has it as a program."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import HeadersConfig, LimitsConfig, PolicyConfig, TokensConfig
from icr_proxy.config.models import ShutdownConfig
from icr_proxy.errors import BindError, ConfigError
from icr_proxy.identifiers import TokenKey
from icr_proxy.runtime.app import App
from tests.support.app_fixture import (
    RunningProxy,
    call,
    config_for,
    proxy_before,
    read_answer,
    request_head,
    running,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from icr_proxy.config.models import Config
    from icr_proxy.emulator.server import Emulator

NOWHERE = "http://127.0.0.1:9"


def first(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    async with running(config_for(NOWHERE)) as other:
        config = config_for(NOWHERE, listener={"bind": other.app.address})
        app = App(config, stream=io.BytesIO())

        with pytest.raises(BindError, match="is another program using it"):
            await app.start()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(app.admin.address.rpartition(":")[2]))


async def test_a_reload_replaces_what_decides(proxy: RunningProxy, emulator: Emulator) -> None:
    old = proxy.app.config
    new = replace(
        old, policy=PolicyConfig(read_only=True), headers=HeadersConfig(installation="X-Tenant")
    )

    proxy.app.reload(lambda: new)

    write = request_head("POST", tag=None, extra=f"X-Tenant: {first(emulator)}\r\n")
    assert (await call(proxy.port, write)).problem["code"] == "policy-denied"
    assert proxy.log("config.reloaded")[0]["restart_needed_for"] == []


async def test_a_reload_names_what_needs_a_restart_and_leaves_it(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    old = proxy.app.config
    upstream = replace(old.upstream, base_url="http://127.0.0.1:1")

    proxy.app.reload(lambda: replace(old, upstream=upstream))

    answer = await call(proxy.port, request_head(target="/_emulator/echo/x", tag=first(emulator)))
    assert answer.status == 200
    assert proxy.log("config.reloaded")[0]["restart_needed_for"] == ["upstream.base_url"]


async def test_each_call_of_our_own_carries_the_api_version_once(emulator: Emulator) -> None:
    """The documentation shows it on all app endpoints (D); a reload may change it."""
    config = config_for(
        emulator.base_url,
        app_id=emulator.app_id,
        key=emulator.private_key_pem,
        tokens=TokensConfig(revoke_on_exit=True),
        listener={"untagged": "app"},
    )
    one = emulator.world.installations[first(emulator)]
    async with running(config) as proxy:
        by_organization = f"X-ICR-Organization-Id: {one.organization.id}\r\n"
        await call(proxy.port, request_head(target="/projects", tag=None, extra=by_organization))
        await call(proxy.port, request_head(target="/projects", tag=None))
        other = replace(config.upstream, api_version="2024-01-01")
        proxy.app.reload(lambda: replace(config, upstream=other))
        await proxy.app.drain()

    own = [seen for seen in emulator.world.requests if seen.target.startswith("/app/")]
    assert {seen.method for seen in own} == {"GET", "POST", "DELETE"}
    assert [(seen.method, seen.values("x-icr-api-version")) for seen in own] == [
        (seen.method, ["2024-01-01" if seen.method == "DELETE" else "2023-06-16"]) for seen in own
    ]
    assert {tuple(seen.values("accept-encoding")) for seen in own} == {("identity",)}


async def test_a_bad_configuration_changes_nothing_and_says_so(proxy: RunningProxy) -> None:
    before = proxy.app.config

    def load() -> Config:
        raise ConfigError(("tokens.max_entries: 0 is too few",))

    proxy.app.reload(load)

    assert proxy.app.config is before
    assert proxy.log("config.rejected")[0]["problems"] == ["tokens.max_entries: 0 is too few"]


async def test_a_log_level_takes_effect_while_running(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    old = proxy.app.config
    target = request_head(target="/_emulator/echo/x", tag=first(emulator))

    proxy.app.reload(lambda: replace(old, logs=replace(old.logs, level="error")))
    await call(proxy.port, target)

    assert proxy.log("request.done") == []


async def test_stopping_twice_is_harmless(emulator: Emulator) -> None:
    async with running(config_for(emulator.base_url)) as proxy:
        await proxy.app.stop()


async def test_several_listeners_are_served_by_one_process(emulator: Emulator) -> None:
    config = config_for(emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem)
    own = replace(config.listeners[0], installation=first(emulator))
    config = replace(config, listeners=(config.listeners[0], own))

    async with running(config) as proxy:
        plain, default = proxy.app.inbound.listeners
        request = request_head(target="/_emulator/echo/x", tag=None)
        refused = await call(int(plain.address.rpartition(":")[2]), request)
        served = await call(int(default.address.rpartition(":")[2]), request)

    assert refused.problem["code"] == "installation-required"
    assert served.status == 200


async def test_a_drain_refuses_what_comes_anew_and_finishes_the_rest(emulator: Emulator) -> None:
    limits = LimitsConfig()
    config = config_for(
        emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem, limits=limits
    )
    slow = request_head(target="/_emulator/slow?seconds=0.3", tag=first(emulator))
    async with running(config) as proxy:
        under_way = asyncio.ensure_future(call(proxy.port, slow))
        while proxy.app.inbound.in_flight.count == 0:  # noqa: ASYNC110  # the proxy tells nobody
            await asyncio.sleep(0.01)

        finished = await proxy.app.drain()

        assert finished
        assert (await under_way).status == 200
        assert proxy.log("proxy.draining")[0]["in_flight"] == 1


# -- tokens are revoked at the end ----------------------------------------------------------------


REVOKING = TokensConfig(revoke_on_exit=True)


@asynccontextmanager
async def callers_who_do_not_read(
    proxy: RunningProxy, emulator: Emulator
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Have answers under way until one is written, but not all of it has left the proxy."""
    writers: list[asyncio.StreamWriter] = []
    readers = []
    for size in range(100_000, 20_000_000, 40_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
        writers.append(writer)
        writer.write(request_head(target=f"/_emulator/bytes/{size}", tag=first(emulator)))
        await reader.readuntil(b"\r\n\r\n")
        readers.append(reader)
        async with asyncio.timeout(5):
            while proxy.app.inbound.in_flight.count:  # noqa: ASYNC110  # the proxy tells nobody
                await asyncio.sleep(0.001)
        if proxy.app.inbound.listeners[0].unsent:
            break
    yield readers
    for writer in writers:
        writer.close()


async def test_a_drain_waits_for_the_last_bytes_of_answers(emulator: Emulator) -> None:
    async with (
        proxy_before(emulator) as proxy,
        callers_who_do_not_read(proxy, emulator) as readers,
    ):
        drain = asyncio.ensure_future(proxy.app.drain())
        await asyncio.sleep(0.2)
        assert not drain.done()
        sizes = [len(await reader.read()) for reader in readers]

        assert await drain
    assert sizes == list(range(100_000, 100_000 + 40_000 * len(sizes), 40_000))


@asynccontextmanager
async def a_refused_upload(proxy: RunningProxy) -> AsyncIterator[asyncio.StreamWriter]:
    """Have a caller that sends on behind its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(request_head("POST", tag=None, extra="Content-Length: 99999999\r\n"))
    assert (await read_answer(reader)).status == 400
    yield writer
    writer.close()


async def test_a_drain_waits_for_callers_that_still_send(emulator: Emulator) -> None:
    async with proxy_before(emulator) as proxy, a_refused_upload(proxy) as writer:
        drain = asyncio.ensure_future(proxy.app.drain())
        for _ in range(10):
            writer.write(b"x" * 65536)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert not drain.done()
        writer.close()

        assert await drain


async def test_a_drain_waits_for_no_caller_that_has_left_meanwhile(emulator: Emulator) -> None:
    async with (
        proxy_before(emulator) as proxy,
        a_refused_upload(proxy) as first,
        a_refused_upload(proxy) as second,
        asyncio.timeout(1),
    ):
        drain = asyncio.ensure_future(proxy.app.drain())
        await asyncio.sleep(0.05)
        second.close()
        await asyncio.sleep(0.05)
        assert not drain.done()
        first.close()

        assert await drain


async def test_a_drain_does_not_wait_for_ever_for_callers_that_still_send(
    emulator: Emulator,
) -> None:
    shutdown = ShutdownConfig(max_drain=0.1)
    async with (
        proxy_before(emulator, shutdown=shutdown) as proxy,
        a_refused_upload(proxy),
        asyncio.timeout(1),
    ):
        assert await proxy.app.drain()
        assert not proxy.log("proxy.cut_off")


async def test_a_drain_does_not_wait_for_ever_for_them(emulator: Emulator) -> None:
    shutdown = ShutdownConfig(max_drain=0.1)
    async with (
        proxy_before(emulator, shutdown=shutdown) as proxy,
        callers_who_do_not_read(proxy, emulator),
    ):
        assert not await proxy.app.drain()
        assert proxy.log("proxy.cut_off")[0]["in_flight"] == 1


async def test_a_drain_revokes_what_was_minted(emulator: Emulator) -> None:
    async with proxy_before(emulator, tokens=REVOKING) as proxy:
        for installation in list(emulator.world.installations)[:2]:
            await call(proxy.port, request_head(tag=installation))
        proxy.app.credentials.tokens.invalidate(TokenKey(first(emulator)))
        minted = set(emulator.world.tokens)

        finished = await proxy.app.drain()

        assert finished
        assert len(minted) == 2
        assert not emulator.world.tokens
        (line,) = proxy.log("tokens.revoked")
        assert (line["revoked"], line["failed"], line["left"]) == (2, 0, 0)
        assert not any(token in json.dumps(proxy.log()) for token in minted)


async def test_a_drain_revokes_nothing_by_default(proxy: RunningProxy, emulator: Emulator) -> None:
    await call(proxy.port, request_head(tag=first(emulator)))

    await proxy.app.drain()

    assert emulator.world.tokens
    assert proxy.log("tokens.revoked") == []


async def test_tokens_the_api_forgot_are_as_good_as_revoked(emulator: Emulator) -> None:
    async with proxy_before(emulator, tokens=REVOKING) as proxy:
        await call(proxy.port, request_head(tag=first(emulator)))
        emulator.world.revoke_all(first(emulator))

        await proxy.app.drain()

        assert proxy.log("tokens.revoked")[0]["revoked"] == 1


async def test_a_drain_that_took_all_its_time_leaves_the_tokens(emulator: Emulator) -> None:
    shutdown = ShutdownConfig(max_drain=0.1)
    hanging = request_head(target="/_emulator/slow?seconds=60", tag=first(emulator))
    async with proxy_before(emulator, tokens=REVOKING, shutdown=shutdown) as proxy:
        under_way = asyncio.ensure_future(call(proxy.port, hanging))
        while not any("slow" in seen.target for seen in emulator.world.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        finished = await proxy.app.drain()

        assert not finished
        assert proxy.log("tokens.revoked")[0]["left"] == 1
    await asyncio.wait({under_way})
    assert isinstance(under_way.exception(), OSError | EOFError)


async def test_stopping_without_a_drain_revokes_nothing(emulator: Emulator) -> None:
    async with proxy_before(emulator, tokens=REVOKING) as proxy:
        await call(proxy.port, request_head(tag=first(emulator)))

    assert emulator.world.tokens

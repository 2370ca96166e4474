"""What the admin port of a real proxy says of one token."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from icr_proxy.admin.token_state import TokenState, ask_token_state
from icr_proxy.config.models import AdminConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.identifiers import TokenKey
from tests.support.app_fixture import RunningProxy, call, config_for, request_head, running
from tests.support.tls_front import serving


async def ask(
    proxy: RunningProxy, installation: str, *, app: str = "", token_file: Path | None = None
) -> TokenState:
    config = proxy.app.config
    return await asyncio.to_thread(
        ask_token_state,
        proxy.app.admin.address,
        TokenKey(installation),
        app=app or config.app.id,
        upstream=config.upstream.base_url,
        token_file=token_file,
    )


async def test_a_token_in_the_cache_is_described(emulator: Emulator, proxy: RunningProxy) -> None:
    installation = next(iter(emulator.world.installations))
    await call(proxy.port, request_head(tag=installation))

    found = await ask(proxy, installation)

    assert found.known
    assert found.token is not None
    assert found.token.state == "fresh"
    assert "120 minutes left, generation 1" in found.sentence


async def test_a_token_that_is_not_there_is_said(proxy: RunningProxy) -> None:
    found = await ask(proxy, "i")

    assert (found.known, found.token) == (True, None)
    assert found.sentence.startswith("none at 127.0.0.1:")


async def test_a_blocked_installation_is_said(proxy: RunningProxy) -> None:
    proxy.app.credentials.tokens.block(TokenKey("i"))

    found = await ask(proxy, "i")

    assert (found.known, found.token) == (True, None)
    assert found.sentence.endswith(", where it is blocked")


async def test_a_proxy_of_another_app_is_not_believed(proxy: RunningProxy) -> None:
    found = await ask(proxy, "i", app="another")

    assert not found.known
    assert "another app" in found.sentence


async def test_the_admin_token_is_sent_if_there_is_a_file_for_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    admin = AdminConfig(bind="127.0.0.1:0", token_file=file)
    async with running(config_for("http://127.0.0.1:9", admin=admin)) as proxy:
        asked = partial(ask, proxy, "i")
        right, none, missing = (
            await asked(token_file=file),
            await asked(),
            await asked(token_file=tmp_path / "other"),
        )

    assert right.sentence.startswith("none at 127.0.0.1:")
    assert (none.known, "wants another admin token" in none.sentence) == (False, True)
    assert (missing.known, "other cannot be read" in missing.sentence) == (False, True)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", id="no such page"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="another status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff", id="binary"),
        pytest.param(b"220 smtp\r\n", id="no HTTP"),
    ],
)
async def test_what_is_no_proxy_is_said(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with serving(serve) as address:
        found = await asyncio.to_thread(
            ask_token_state, address, TokenKey("i"), app="a", upstream="u"
        )

    assert found == TokenState(
        known=False, sentence=f"unknown: what answers at {address} is no icr-proxy"
    )


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        pytest.param("127.0.0.1:1", "no proxy answers at 127.0.0.1:1", id="nobody"),
        pytest.param("0.0.0.0:1", "no proxy answers at 127.0.0.1:1", id="everywhere"),
        pytest.param("127.0.0.1:0", "not asked", id="any port"),
        pytest.param("systemd:admin", "not asked", id="known to systemd only"),
        pytest.param("unix:/no/such", "no proxy answers at unix:/no/such", id="Unix socket"),
    ],
)
def test_without_a_proxy_the_state_is_unknown(bind: str, words: str) -> None:
    found = ask_token_state(bind, TokenKey("i"), app="a", upstream="u")

    assert not found.known
    assert words in found.sentence

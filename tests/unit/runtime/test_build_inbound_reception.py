"""The callers' listeners as they are built from a configuration, with the proxy around them."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.errors import StartError
from icr_proxy.runtime.app import App
from tests.support.app_fixture import (
    Visit,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.certificate_authority import authority, issue, server_certificate, trusting

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "http://127.0.0.1:9"


async def test_tls_of_a_listener_is_told_by_log_and_metric(tmp_path: Path) -> None:
    issued, renewed = server_certificate(days=(-2, -1)), server_certificate(days=(-1, 7))
    cert, key = issued.write(tmp_path)
    listener = {"tls": TlsConfig(cert=cert, key=key)}
    async with running(config_for(NOWHERE, listener=listener)) as proxy:
        name = "listener_certificate_expiry_timestamp_seconds"
        before = proxy.metric(name, listener="127.0.0.1:0")
        renewed.write(tmp_path)
        after = proxy.metric(name, listener="127.0.0.1:0")

    assert before == issued.certificate.not_valid_after_utc.timestamp()
    assert after == renewed.certificate.not_valid_after_utc.timestamp()
    [line] = proxy.log("tls.certificate_unusable")
    assert line["detail"] == "the certificate has expired"
    assert len(proxy.log("tls.renewed")) == 1


async def test_a_request_over_tls_reaches_the_api(tmp_path: Path) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"[]"))

    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority("clients").cert_pem)
    cert, key = server_certificate().write(tmp_path)
    tls = TlsConfig(cert=cert, key=key, client_ca=ca)
    client = issue("ledger", by=authority("clients"))
    context = trusting(authority(), as_client=client, folder=tmp_path)
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, listener={"tls": tls})) as proxy,
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", proxy.port, ssl=context, server_hostname="localhost"
        )
        writer.write(request_head())
        answer = await read_answer(reader)
        writer.transport.abort()

    assert (answer.status, answer.body) == (200, b"[]")
    assert proxy.log("request.done")[0]["peer"] == "127.0.0.1"


def test_files_that_cannot_be_used_are_an_error_at_start(tmp_path: Path) -> None:
    cert, key = server_certificate().write(tmp_path)
    key.write_bytes(b"")
    config = config_for(NOWHERE, listener={"tls": TlsConfig(cert=cert, key=key)})

    with pytest.raises(StartError, match=r"^listeners\[0\].tls.key: "):
        App(config, stream=io.BytesIO())

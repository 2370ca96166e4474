"""An API that cannot prove who it is gets no byte of a request, and no token."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from cryptography import x509

from tests.support.app_fixture import (
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.certificate_authority import Issued, authority, issue, server_certificate

Run = Callable[[Awaitable[None]], None]
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure (RFC 8446, 6)
on_both_loops = pytest.mark.parametrize(
    "run", [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
)


def named(host: str) -> Issued:
    return issue(host, by=authority(), names=(x509.DNSName(host),))


def signed_by_itself() -> Issued:
    names = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return issue("localhost", names=names)


NOT_TRUSTED = [
    pytest.param(lambda: server_certificate(days=(-3, -1)), id="expired"),
    pytest.param(lambda: server_certificate(days=(1, 3)), id="not yet valid"),
    pytest.param(lambda: named("other.example"), id="another host's"),
    pytest.param(lambda: issue("localhost", by=authority()), id="only a common name"),
    pytest.param(signed_by_itself, id="signed by itself"),
    pytest.param(lambda: server_certificate(by=authority("stranger")), id="wrong authority"),
]


def serving(certificate: Issued, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate.write(folder, "api"))
    return context


def trust(folder: Path) -> Path:
    path = folder / "ca.pem"
    path.write_bytes(authority().cert_pem)
    return path


@asynccontextmanager
async def trusting_before(url: str, folder: Path) -> AsyncIterator[RunningProxy]:
    """Run a proxy that trusts the authority, and in which nobody waits for a failure to pass."""
    async with running(config_for(url, upstream={"ca_file": trust(folder)})) as proxy:
        proxy.app.credentials.tokens._sleep = None
        yield proxy


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok(b"done"))


@asynccontextmanager
async def stage(
    context: ssl.SSLContext, folder: Path
) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    async with (
        scripted_upstream(plainly, tls=context) as api,
        trusting_before(api.url, folder) as proxy,
    ):
        yield proxy, api


@on_both_loops
def test_a_private_authority_is_trusted_when_configured(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(serving(server_certificate(), tmp_path), tmp_path) as (proxy, _):
            assert (await call(proxy.port, request_head())).body == b"done"

    run(scene())


@on_both_loops
@pytest.mark.parametrize("certificate", NOT_TRUSTED)
def test_an_api_that_is_not_trusted_is_not_even_asked_for_a_token(
    run: Run, certificate: Callable[[], Issued], tmp_path: Path
) -> None:
    async def scene() -> None:
        async with stage(serving(certificate(), tmp_path), tmp_path) as (proxy, api):
            answer = await call(proxy.port, request_head())

            assert (answer.status, answer.problem["code"]) == (502, "upstream-tls")
            assert (api.mints, api.heads) == (0, [])

    run(scene())


@on_both_loops
@pytest.mark.parametrize("certificate", NOT_TRUSTED)
def test_an_api_that_is_no_longer_trusted_gets_no_token(
    run: Run, certificate: Callable[[], Issued], tmp_path: Path
) -> None:
    """The token is there; from the next connection on somebody else answers at the address."""

    async def scene() -> None:
        context = serving(server_certificate(), tmp_path)
        async with stage(context, tmp_path) as (proxy, api):
            assert (await call(proxy.port, request_head())).status == 200
            context.load_cert_chain(*certificate().write(tmp_path, "other"))
            proxy.app.outbound.pool.close()

            for method in ("GET", "POST"):
                answer = await call(proxy.port, request_head(method))
                assert (answer.status, answer.problem["code"]) == (502, "upstream-tls")

            assert (api.mints, len(api.heads)) == (1, 1)

    run(scene())


@on_both_loops
def test_tls_1_1_is_refused(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        context = serving(server_certificate(), tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is what this is about
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        async with stage(context, tmp_path) as (proxy, api):
            answer = await call(proxy.port, request_head())

            assert (answer.status, answer.problem["code"]) == (502, "upstream-tls")
            assert (api.mints, api.heads) == (0, [])

    run(scene())


@on_both_loops
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(ALERT, id="a TLS alert"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="plain HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
    ],
)
def test_what_does_not_speak_tls_learns_nothing(run: Run, said: bytes, tmp_path: Path) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(65536))
        writer.write(said)
        while data := await reader.read(65536):
            got.append(data)
        writer.close()

    async def scene() -> None:
        got.clear()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with trusting_before(url, tmp_path) as proxy:
            answer = await call(proxy.port, request_head("POST"))

        assert (answer.status, answer.problem["code"]) == (502, "upstream-tls")
        sent = b"".join(got)
        assert sent
        assert not any(word in sent for word in (b"HTTP/1.1", b"Bearer", b"inst-1"))
        server.close()

    run(scene())

"""A connection is made to the API and to nobody else."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.errors import (
    StartError,
    UpstreamBrokenError,
    UpstreamCertificateError,
    UpstreamExhaustedError,
    UpstreamLoopError,
    UpstreamTimeoutError,
    UpstreamTlsError,
)
from icr_proxy.forwarding.forwarder import may_send_again
from icr_proxy.http1.problem import kind_of
from icr_proxy.upstream.circuit_breaker import is_about_api
from icr_proxy.upstream.dialer import OwnAddresses, parse_address
from icr_proxy.upstream.pool import Pool
from tests.support.app_fixture import (
    Clock,
    Noted,
    Visit,
    ok,
    pool_to,
    scripted_upstream,
    upstream_request,
    whole,
)
from tests.unit.net.test_descriptors import no_descriptor_left


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok())


# -- certificates ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Issued:
    """A certificate and the key to it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def context(self, folder: Path) -> ssl.SSLContext:
        """Give the server's side."""
        path = folder / "server.pem"
        path.write_bytes(
            self.certificate.public_bytes(serialization.Encoding.PEM)
            + self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def issue(
    name: str, *, by: Issued | None = None, days: int = 1, is_ca: bool = False, host: str = ""
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  # certificates have real dates
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=10))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if host:
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issued(key, builder.sign((by or Issued(key, None)).key, hashes.SHA256()))  # type: ignore[arg-type]  # a root signs itself


@cache
def authority() -> Issued:
    return issue("test authority", is_ca=True)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority().certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def trusted(tmp_path: Path) -> ssl.SSLContext:
    return issue("api", by=authority(), host="localhost").context(tmp_path)


async def test_a_private_authority_is_trusted_when_configured(
    trusted: ssl.SSLContext, ca_file: Path
) -> None:
    async with scripted_upstream(plainly, tls=trusted) as api:
        with pool_to(api.url, ca_file=ca_file) as pool:
            assert await whole(await pool.send(upstream_request())) == b"{}"


async def test_a_tls_connection_is_reused(trusted: ssl.SSLContext, ca_file: Path) -> None:
    async with scripted_upstream(plainly, tls=trusted) as api:
        with pool_to(api.url, ca_file=ca_file) as pool:
            for _ in range(3):
                await whole(await pool.send(upstream_request()))

    assert api.visits == 1


@pytest.mark.parametrize(
    ("certificate", "use_ca"),
    [
        pytest.param(lambda: issue("api", host="localhost"), True, id="signed by itself"),
        pytest.param(
            lambda: issue("api", by=authority(), host="localhost", days=-1), True, id="expired"
        ),
        pytest.param(
            lambda: issue("api", by=authority(), host="other.example"), True, id="other host"
        ),
        pytest.param(lambda: issue("localhost", by=authority()), True, id="only a common name"),
        pytest.param(
            lambda: issue("api", by=authority(), host="localhost"), False, id="unknown authority"
        ),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused_before_a_byte_is_sent(
    certificate: Callable[[], Issued], tmp_path: Path, ca_file: Path, *, use_ca: bool
) -> None:
    context = certificate().context(tmp_path)
    async with scripted_upstream(plainly, tls=context) as api:
        trust = ca_file if use_ca else None
        with pool_to(api.url, ca_file=trust) as pool, pytest.raises(UpstreamTlsError) as caught:
            await pool.send(upstream_request())

    assert api.heads == []
    assert isinstance(caught.value, UpstreamCertificateError)
    assert not caught.value.sent


async def test_plain_http_behind_an_https_address_is_a_tls_failure() -> None:
    async def talks_first(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talks_first, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pool_to(url) as pool, pytest.raises(UpstreamTlsError):
        await pool.send(upstream_request())
    server.close()


async def test_a_handshake_that_stalls_is_a_timeout_and_closes_the_connection() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pool_to(url, connect=0.05) as pool:
        with pytest.raises(UpstreamTimeoutError):
            await pool.send(upstream_request())
        async with asyncio.timeout(5):
            await ended.wait()
    server.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_over_tls_a_body_without_length_needs_a_goodbye(
    run: Callable[[Awaitable[None]], None], trusted: ssl.SSLContext, ca_file: Path
) -> None:
    """Without one anybody on the way could cut it (RFC 9112, 9.8)."""

    async def scene() -> None:
        go = asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(b"HTTP/1.1 200 OK\r\n\r\nhello")
            await go.wait()
            visit.writer.transport.abort()

        async with scripted_upstream(script, tls=trusted) as api:
            with pool_to(api.url, ca_file=ca_file) as pool:
                response = await pool.send(upstream_request())
                assert await response.read() == b"hello"
                go.set()
                with pytest.raises(UpstreamBrokenError):
                    await whole(response)

    run(scene())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "framing", [pytest.param(True, id="length"), pytest.param(False, id="until close")]
)
def test_over_tls_a_slow_reader_gets_all_of_a_connection_that_ends(
    run: Callable[[Awaitable[None]], None],
    trusted: ssl.SSLContext,
    ca_file: Path,
    *,
    framing: bool,
) -> None:
    size = 3_000_000

    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            length = b"Content-Length: %d\r\n" % size if framing else b""
            await visit.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n")
            await visit.say(bytes(size))
            visit.writer.close()

        async with scripted_upstream(script, tls=trusted) as api:
            with pool_to(api.url, ca_file=ca_file) as pool:
                response = await pool.send(upstream_request())
                got = 0
                while data := await response.read():
                    got += len(data)
                    await asyncio.sleep(0.01)
                response.close()
                assert got == size

    run(scene())


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "text"])
def test_a_ca_file_that_cannot_be_used_stops_the_start(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(StartError, match="ca_file"):
        parse_address("https://api.example", ca_file=path)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://api.example", "api.example", 443),
        ("https://api.example:8443", "api.example", 8443),
        ("http://127.0.0.1", "127.0.0.1", 80),
        ("http://[::1]:81", "::1", 81),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int) -> None:
    address = parse_address(url, ca_file=None)

    assert (address.host, address.port) == (host, port)
    assert (address.tls is not None) == url.startswith("https")


# -- where to connect -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address", "host", "port"),
    [
        ("https://api.example", None, "api.example", 443),
        ("https://api.example", "10.0.0.1", "10.0.0.1", 443),
        ("http://api.example", "10.0.0.1", "10.0.0.1", 80),
        ("https://api.example:8443", "10.0.0.1", "10.0.0.1", 8443),
        ("https://api.example:8443", "[::1]:444", "::1", 444),
    ],
)
def test_an_address_is_where_to_connect_and_the_url_names_the_api(
    url: str, address: str | None, host: str, port: int
) -> None:
    found = parse_address(url, ca_file=None, address=address)

    assert (found.host, found.port, found.name) == (host, port, "api.example" if url else "")


async def test_the_certificate_at_an_address_is_the_one_of_the_urls_name(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority().certificate.public_bytes(serialization.Encoding.PEM))
    tls = issue("api", by=authority(), host="api.example").context(tmp_path)
    async with scripted_upstream(plainly, tls=tls) as api:
        place = api.url.removeprefix("https://")
        for url, fine in (("https://api.example", True), ("https://other.example", False)):
            pool = loop_pool(url, ca_file=ca, address=place, own=None)
            if fine:
                assert await whole(await pool.send(upstream_request())) == b"{}"
            else:
                with pytest.raises(UpstreamTlsError):
                    await pool.send(upstream_request())
            pool.close()


def loop_pool(
    url: str, *, own: int | None, ca_file: Path | None = None, address: str | None = None
) -> Pool:
    return Pool(
        parse_address(url, ca_file=ca_file, address=address),
        timeouts=TimeoutsConfig(),
        connections=1,
        now=Clock(),
        watcher=Noted(),
        is_own=lambda _host, port: port == own,
    )


@pytest.mark.parametrize("encrypted", [False, True])
async def test_nothing_is_sent_to_ourselves(tmp_path: Path, *, encrypted: bool) -> None:
    """In TLS we do not even trust ourselves; the cause is told all the same."""
    tls = issue("api", by=authority(), host="localhost").context(tmp_path) if encrypted else None
    async with scripted_upstream(plainly, tls=tls) as api:
        pool = loop_pool(api.url, own=int(api.url.rpartition(":")[2]))
        with pytest.raises(UpstreamLoopError, match=r"set upstream\.address"):
            await pool.send(upstream_request())

        assert api.heads == []
        assert (pool.active, pool.free) == (0, 1)
        pool.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_lack_of_descriptors_is_not_told_of_the_api(
    host: str, run: Callable[[Awaitable[None]], None]
) -> None:
    async def scene() -> None:
        watcher = Noted()
        async with scripted_upstream(plainly) as api:
            url = api.url.replace("127.0.0.1", host)
            with pool_to(url, watcher=watcher) as pool:
                assert await whole(await pool.send(upstream_request())) == b"{}"
                with no_descriptor_left(), pytest.raises(UpstreamExhaustedError) as caught:
                    await pool.send(upstream_request(fresh=True))
                assert await whole(await pool.send(upstream_request())) == b"{}"

        assert kind_of(caught.value).code == "overloaded"
        assert not is_about_api(caught.value)
        assert not may_send_again(caught.value, changes_state=False)
        assert "exhausted" in watcher.connects

    run(scene())


async def test_what_is_not_trusted_and_not_ourselves_is_not_trusted(tmp_path: Path) -> None:
    tls = issue("api", by=authority(), host="localhost").context(tmp_path)
    async with scripted_upstream(plainly, tls=tls) as api:
        pool = loop_pool(api.url, own=1)
        with pytest.raises(UpstreamTlsError):
            await pool.send(upstream_request())
        pool.close()


@pytest.mark.parametrize(
    ("address", "host", "port", "own"),
    [
        pytest.param("127.0.0.1:443", "127.0.0.1", 443, True, id="the same"),
        pytest.param("127.0.0.1:443", "::ffff:127.0.0.1", 443, True, id="written as IPv6"),
        pytest.param("127.0.0.1:443", "127.0.0.1", 444, False, id="another port"),
        pytest.param("127.0.0.1:443", "127.0.0.2", 443, False, id="another address"),
        pytest.param("0.0.0.0:443", "127.0.0.1", 443, True, id="the wildcard's loopback"),
        pytest.param("0.0.0.0:443", "127.9.9.9", 443, True, id="all of loopback is here"),
        pytest.param("0.0.0.0:443", "192.0.2.1", 443, False, id="another machine"),
        pytest.param("0.0.0.0:443", "::1", 443, False, id="IPv4 takes no IPv6"),
        pytest.param("[::]:443", "::1", 443, True, id="the IPv6 wildcard's loopback"),
        pytest.param("[::1]:443", "::1%lo", 443, True, id="with a zone"),
        pytest.param("unix:/run/x", "127.0.0.1", 443, False, id="a Unix socket has no port"),
    ],
)
def test_it_is_its_own_where_it_listens(address: str, host: str, port: int, *, own: bool) -> None:
    places = OwnAddresses()
    places.add([address, "127.0.0.1:9999"])

    assert places.includes(host, port) is own

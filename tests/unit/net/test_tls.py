"""What is wrong with a certificate or a key is said of the file that it is wrong with."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
import struct
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from icr_proxy.config.inbound_models import LimitsConfig, TlsConfig
from icr_proxy.errors import StartError
from icr_proxy.net.peers import Peer
from icr_proxy.net.tls import MOST, ReloadingSslContext, read_identity
from icr_proxy.server.connection import peer_of
from icr_proxy.server.listener import Listener, ListenerOptions
from icr_proxy.server.response import send_page, text_page
from tests.support.app_fixture import pem_of, read_answer, request_head
from tests.support.certificate_authority import (
    Issued,
    authority,
    issue,
    server_certificate,
    trusting,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from icr_proxy.net.tls import TlsIdentity
    from icr_proxy.server.request import Request
    from icr_proxy.server.response import ResponseWriter

KEY = "listeners[0].tls"


def written(folder: Path, **contents: bytes) -> TlsConfig:
    """Write good files, or other contents for some of them."""
    good = server_certificate()
    files = {"cert": good.cert_pem, "key": good.key_pem} | contents
    for name, data in files.items():
        (folder / name).write_bytes(data)
    ca = folder / "client_ca" if "client_ca" in files else None
    return TlsConfig(cert=folder / "cert", key=folder / "key", client_ca=ca)


def complaint(tls: TlsConfig) -> str:
    with pytest.raises(StartError) as caught:
        read_identity(tls, key=KEY)
    return caught.value.detail


def test_a_good_pair_has_its_dates(tmp_path: Path) -> None:
    good = server_certificate(days=(-1, 30))
    identity = read_identity(written(tmp_path, cert=good.cert_pem, key=good.key_pem), key=KEY)

    assert identity.expires_at == good.certificate.not_valid_after_utc.timestamp()
    assert identity.begins_at == good.certificate.not_valid_before_utc.timestamp()


@pytest.mark.parametrize(
    ("days", "said"),
    [
        pytest.param((-2, -1), "has expired", id="expired"),
        pytest.param((1, 2), "is not valid yet", id="from tomorrow"),
        pytest.param((-1, 1), None, id="valid"),
    ],
)
def test_a_certificate_out_of_its_time_is_no_error_but_told(
    tmp_path: Path, days: tuple[float, float], said: str | None
) -> None:
    """It can be renewed while the proxy runs, and some callers do not look."""
    issued = server_certificate(days=days)
    now = issued.certificate.not_valid_before_utc.timestamp() - days[0] * 86400

    identity = read_identity(written(tmp_path, cert=issued.cert_pem, key=issued.key_pem), key=KEY)

    assert identity.complaint(now=now) == said


@pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    tls = written(tmp_path, client_ca=authority().cert_pem)
    (tmp_path / name).unlink()

    assert complaint(tls) == (
        f"{KEY}.{name}: {tmp_path / name} cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_not_pem_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    tls = written(tmp_path, **({"client_ca": authority().cert_pem} | {name: data}))

    found = complaint(tls)

    assert found.startswith(f"{KEY}.{name}: {tmp_path / name} does not hold")


@pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
@pytest.mark.parametrize(
    "dress",
    [
        lambda pem: b"\xef\xbb\xbf" + pem,
        lambda pem: pem.decode().encode("utf-16"),
        base64.b64encode,
    ],
    ids=["byte order mark", "UTF-16", "base64"],
)
def test_pem_in_a_form_that_openssl_does_not_read_is_named(
    tmp_path: Path, name: str, dress: Callable[[bytes], bytes]
) -> None:
    issued = server_certificate()
    files = {"client_ca": authority().cert_pem, "cert": issued.cert_pem, "key": issued.key_pem}

    found = complaint(written(tmp_path, **(files | {name: dress(files[name])})))

    assert found.startswith(f"{KEY}.{name}: {tmp_path / name} is not plain PEM")


@pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    tls = written(tmp_path, client_ca=authority().cert_pem)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)

    assert complaint(tls).endswith("cannot be read: Not a regular file")


def test_another_certificates_key_is_told(tmp_path: Path) -> None:
    tls = written(tmp_path, key=server_certificate().key_pem)

    assert "is not the key of the certificate in" in complaint(tls)


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    issued = server_certificate()

    found = complaint(written(tmp_path, cert=issued.cert_pem, key=issued.locked_key_pem))

    assert "is encrypted" in found


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    assert "is over 1 MiB" in complaint(written(tmp_path, cert=b"x" * (MOST + 1)))


def test_what_openssl_refuses_is_said_in_its_word(tmp_path: Path) -> None:
    """It takes another of the certificates in the file for the first one."""
    good, other = server_certificate(), server_certificate()
    trusted = other.cert_pem.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")

    found = complaint(written(tmp_path, cert=trusted + good.cert_pem, key=good.key_pem))

    assert found == f"{KEY}: cert, key and client_ca cannot be used: KEY_VALUES_MISMATCH"


def test_half_a_section_is_no_identity() -> None:
    assert complaint(TlsConfig()) == f"{KEY}: cert and key are needed"


def test_old_protocols_and_weak_ciphers_are_off(tmp_path: Path) -> None:
    context = read_identity(written(tmp_path), key=KEY).context

    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert all("GCM" in name or "CHACHA20" in name for name in names)
    assert all(name.startswith(("ECDHE-", "TLS_")) for name in names)


@pytest.mark.parametrize(
    ("client_auth", "mode"),
    [("required", ssl.CERT_REQUIRED), ("optional", ssl.CERT_OPTIONAL)],
)
def test_clients_are_asked_for_a_certificate(
    tmp_path: Path, client_auth: str, mode: ssl.VerifyMode
) -> None:
    plain = written(tmp_path, client_ca=authority().cert_pem)
    tls = TlsConfig(
        cert=plain.cert,
        key=plain.key,
        client_ca=plain.client_ca,
        client_auth="optional" if client_auth == "optional" else "required",
    )

    assert read_identity(tls, key=KEY).context.verify_mode == mode


def test_keys_of_other_kinds_are_told_from_the_certificates(tmp_path: Path) -> None:
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    assert "is not the key of" in complaint(written(tmp_path, key=pem_of(rsa_key).encode()))


def test_the_words_of_a_key_file_are_never_said(tmp_path: Path) -> None:
    issued = issue("x")
    damaged = issued.key_pem.replace(b"-----END", b"----END")

    found = complaint(written(tmp_path, key=damaged))

    body = damaged.split(os.linesep.encode())[1].decode()
    assert body not in found


@dataclass
class Told:
    """A `TlsWatcher` that remembers."""

    events: list[str] = field(default_factory=list)

    def certified(self, _identity: TlsIdentity, *, renewed: bool) -> None:
        self.events.append("renewed" if renewed else "first")

    def rejected(self, error: StartError) -> None:
        self.events.append(error.detail)


@dataclass
class Stage:
    """A listener with TLS that answers with who called."""

    listener: Listener
    told: Told
    peers: list[Peer]

    @property
    def port(self) -> int:
        return int(self.listener.address.rpartition(":")[2])

    async def connect(
        self, context: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost"
        )

    async def call(self, context: ssl.SSLContext) -> int:
        reader, writer = await self.connect(context)
        try:
            writer.write(request_head())
            return (await read_answer(reader)).status
        finally:
            writer.transport.abort()

    async def certificate(self, context: ssl.SSLContext) -> bytes:
        """Shake hands and give what the listener showed."""
        _, writer = await self.connect(context)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return bytes(shown)


@asynccontextmanager
async def stage_with(tls: TlsConfig) -> AsyncIterator[Stage]:
    told, peers = Told(), list[Peer]()

    async def respond(request: Request) -> ResponseWriter:
        peers.append(peer_of(request))
        return await send_page(request, text_page(200, "hello"))

    async def refuse(request: Request, _error: object) -> ResponseWriter:
        return await send_page(request, text_page(400, "no"), closing=True)

    listener = Listener(
        "127.0.0.1:0",
        respond=respond,
        refuse=refuse,
        limits=LimitsConfig(),
        tag="x-tag",
        logger=logging.getLogger("nobody"),
        door=ListenerOptions(tls=ReloadingSslContext(tls, key="tls", watcher=told)),
    )
    await listener.open()
    try:
        yield Stage(listener, told, peers)
    finally:
        await listener.close()


def files(folder: Path, issued: Issued, **more: Any) -> TlsConfig:
    cert, key = issued.write(folder)
    return TlsConfig(cert=cert, key=key, **more)


def der(issued: Issued) -> bytes:
    return issued.certificate.public_bytes(Encoding.DER)


def with_clients(folder: Path, *, client_auth: Any = "required") -> TlsConfig:
    ca = folder / "clients-ca.crt"
    ca.write_bytes(authority("clients").cert_pem)
    return files(folder, server_certificate(), client_ca=ca, client_auth=client_auth)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_request_over_tls_is_served(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    async def scene() -> None:
        context = trusting(authority())
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with stage_with(files(tmp_path, server_certificate())) as stage:
            reader, writer = await stage.connect(context)
            writer.write(request_head())
            answer = await read_answer(reader)
            tls = writer.get_extra_info("ssl_object")
            chosen, version = tls.selected_alpn_protocol(), tls.version()
            writer.transport.abort()

        assert answer.body == b"hello\n"
        assert (chosen, version) == ("http/1.1", "TLSv1.3")
        assert stage.peers == [Peer(address="127.0.0.1")]

    run(scene())


async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    context = trusting(authority())
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with stage_with(files(tmp_path, server_certificate())) as stage:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await stage.call(context)

        assert await stage.call(trusting(authority())) == 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_plain_http_on_a_tls_port_ends_cleanly(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    async def scene() -> None:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: wrong.append(what))
        async with stage_with(files(tmp_path, server_certificate())) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(request_head())
            async with asyncio.timeout(5):
                said = await reader.read()
            writer.close()

            assert await stage.call(trusting(authority())) == 200
        # At most an alert of TLS, and no HTTP in clear.
        assert said == b"" or said[0] == 0x15
        assert wrong == []

    run(scene())


async def test_a_handshake_that_does_not_go_on_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icr_proxy.server.listener.HANDSHAKE_SECONDS", 0.05)
    async with stage_with(files(tmp_path, server_certificate())) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"\x16\x03\x01" + struct.pack("!H", 512))  # a record that never comes
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


# -- files that change ----------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_new_certificate_is_for_new_connections_and_old_ones_go_on(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    async def scene() -> None:
        first, second = server_certificate(), server_certificate()
        async with stage_with(files(tmp_path, first)) as stage:
            reader, writer = await stage.connect(trusting(authority()))
            second.write(tmp_path)
            shown = await stage.certificate(trusting(authority()))
            writer.write(request_head())
            answer = await read_answer(reader)
            writer.transport.abort()

        assert shown == der(second)
        assert answer.status == 200
        assert stage.told.events == ["first", "renewed"]

    run(scene())


async def test_the_swap_of_a_mounted_secret_is_seen(tmp_path: Path) -> None:
    """Kubernetes turns `..data` from one directory to the next; the files are links through it."""
    first, second = server_certificate(), server_certificate()
    for name, issued in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        issued.write(tmp_path / name)
    (tmp_path / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    tls = TlsConfig(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")

    async with stage_with(tls) as stage:
        before = await stage.certificate(trusting(authority()))
        (tmp_path / "..new").symlink_to("two")
        os.replace(tmp_path / "..new", tmp_path / "..data")  # noqa: PTH105  # as the kubelet does
        after = await stage.certificate(trusting(authority()))

    assert (before, after) == (der(first), der(second))


async def test_a_bad_new_file_leaves_the_old_certificate_and_is_told_once(tmp_path: Path) -> None:
    first, third = server_certificate(), server_certificate()
    async with stage_with(files(tmp_path, first)) as stage:
        (tmp_path / "tls.key").write_bytes(server_certificate().key_pem)
        shown = [await stage.certificate(trusting(authority())) for _ in range(3)]
        third.write(tmp_path)
        last = await stage.certificate(trusting(authority()))

    assert shown == [der(first)] * 3
    assert last == der(third)
    assert [event.partition(":")[0] for event in stage.told.events] == [
        "first", "tls.key", "renewed",
    ]  # fmt: skip


async def test_a_file_that_has_gone_leaves_the_old_certificate(tmp_path: Path) -> None:
    async with stage_with(files(tmp_path, server_certificate())) as stage:
        (tmp_path / "tls.crt").unlink()

        assert await stage.call(trusting(authority())) == 200
        assert "No such file" in stage.told.events[-1]


# -- client certificates --------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_names_of_a_verified_client_are_known(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    spiffe = x509.UniformResourceIdentifier("spiffe://example/ledger")
    client = issue(
        "ledger", by=authority("clients"), names=(x509.DNSName("ledger.example"), spiffe)
    )

    async def scene() -> None:
        async with stage_with(with_clients(tmp_path)) as stage:
            context = trusting(authority(), as_client=client, folder=tmp_path)
            assert await stage.call(context) == 200

        assert stage.peers[0].names == {
            "cn:ledger", "dns:ledger.example", "uri:spiffe://example/ledger",
        }  # fmt: skip

    run(scene())


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(None, id="none"),
        pytest.param("stranger", id="of another authority"),
        pytest.param("expired", id="expired"),
    ],
)
async def test_without_a_good_client_certificate_nobody_is_served(
    tmp_path: Path, client: str | None
) -> None:
    certificates = {
        None: None,
        "stranger": issue("x", by=authority("somebody else")),
        "expired": issue("x", by=authority("clients"), days=(-2, -1)),
    }
    context = trusting(authority(), as_client=certificates[client], folder=tmp_path)
    async with stage_with(with_clients(tmp_path)) as stage:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await stage.call(context)

        assert stage.peers == []


async def test_a_client_without_a_certificate_is_served_where_it_is_optional(
    tmp_path: Path,
) -> None:
    async with stage_with(with_clients(tmp_path, client_auth="optional")) as stage:
        assert await stage.call(trusting(authority())) == 200

    assert stage.peers == [Peer(address="127.0.0.1")]


async def test_a_wrong_certificate_is_not_passed_over_where_it_is_optional(
    tmp_path: Path,
) -> None:
    stranger = issue("x", by=authority("somebody else"))
    context = trusting(authority(), as_client=stranger, folder=tmp_path)
    async with stage_with(with_clients(tmp_path, client_auth="optional")) as stage:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await stage.call(context)


async def test_an_authority_that_is_taken_off_the_list_lets_nobody_in_any_more(
    tmp_path: Path,
) -> None:
    """Not by a session that was begun before either."""
    client = issue("ledger", by=authority("clients"))
    context = trusting(authority(), as_client=client, folder=tmp_path)
    async with stage_with(with_clients(tmp_path)) as stage:
        assert await stage.call(context) == 200
        (tmp_path / "clients-ca.crt").write_bytes(authority("new clients").cert_pem)

        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await stage.call(context)

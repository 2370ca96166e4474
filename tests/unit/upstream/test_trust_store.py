"""The authorities that the API is verified against, and how a changed file of them is noticed."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from icr_proxy.errors import StartError, UpstreamTlsError
from icr_proxy.upstream.pool import LOOK_SECONDS
from icr_proxy.upstream.trust_store import TrustStore
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
from tests.support.certificate_authority import Issued, authority, issue, server_certificate

if TYPE_CHECKING:
    from collections.abc import Callable


class Told:
    """What a trust store said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def renewed(self) -> None:
        self.said.append("renewed")

    def rejected(self, error: StartError) -> None:
        self.said.append(error.detail)


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok())


def serving(certificate: Issued, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate.write(folder, "server"))
    return context


def trusted(store: TrustStore) -> set[str]:
    return {
        x509.load_der_x509_certificate(each).subject.rfc4514_string().removeprefix("CN=")
        for each in store.context.get_ca_certs(binary_form=True)
    }


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority().cert_pem)
    return path


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda pem: pem, id="as it is"),
        pytest.param(lambda pem: b"\xef\xbb\xbf" + pem, id="byte order mark"),
        pytest.param(lambda pem: pem.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(base64.b64encode, id="base64 of it"),
        pytest.param(lambda pem: pem.replace(b"\n", b"\r\n"), id="CR LF"),
        pytest.param(lambda pem: "Főtanúsítvány\n".encode() + pem, id="a comment in UTF-8"),
        pytest.param(lambda pem: b"Autorit\xe9\n" + pem, id="a comment in Latin-1"),
        pytest.param(lambda pem: pem + pem, id="twice"),
    ],
)
def test_authorities_are_read_in_whatever_state_they_arrive(
    ca_file: Path, dress: Callable[[bytes], bytes]
) -> None:
    ca_file.write_bytes(dress(authority().cert_pem))

    assert trusted(TrustStore(ca_file)) == {"test authority"}


def test_all_of_a_bundle_are_trusted(ca_file: Path) -> None:
    ca_file.write_bytes(authority().cert_pem + b"# another\n" + authority("another").cert_pem)

    assert trusted(TrustStore(ca_file)) == {"test authority", "another"}


BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a file of PEM certificates"),
        (b"garbage", "is not a file of PEM certificates"),
        (BROKEN, "holds a damaged certificate"),
        (authority().key_pem, "is not a file of PEM certificates"),
        (b"x" * (9 << 20), "is over 8 MiB"),
    ],
    ids=["empty", "garbage", "damaged", "a key", "too long"],
)
def test_what_is_no_file_of_authorities_is_refused(
    ca_file: Path, content: bytes, words: str
) -> None:
    ca_file.write_bytes(content)

    with pytest.raises(StartError, match=words) as caught:
        TrustStore(ca_file)

    assert caught.value.detail.startswith(f"upstream.ca_file: {ca_file} ")


# -- authorities of companies ---------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["ca_file", "the system's"])
def test_python_3_13s_strict_check_is_off(ca_file: Path, *, own: bool) -> None:
    context = TrustStore(ca_file if own else None).context

    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_an_authority_without_key_usage_and_identifiers_is_believed(ca_file: Path) -> None:
    """Companies have such authorities; `openssl req -x509` of old made them."""
    plain = issue("plain", is_plain=True)
    in_place(ca_file, plain.cert_pem)
    tls = serving(server_certificate(by=plain), ca_file.parent)
    async with scripted_upstream(plainly, tls=tls) as api:
        url = api.url
        with pool_to(url, ca_file=ca_file) as pool:
            assert await whole(await pool.send(upstream_request())) == b"{}"


# -- a changed file -------------------------------------------------------------------------------


def in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def by_renaming(path: Path, content: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(content)
    draft.replace(path)


def by_copying_with_time(path: Path, content: bytes) -> None:
    """Like `cp -p`: the modification time may go back."""
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, (1, 1))
    shutil.copy2(other, path)


def by_swapping_a_link(path: Path, content: bytes) -> None:
    """Like Kubernetes, when a mounted secret changes."""
    target = path.with_name("target")
    target.write_bytes(content)
    link = path.with_name("link")
    link.symlink_to(target)
    link.replace(path)


CHANGES = (in_place, by_renaming, by_copying_with_time, by_swapping_a_link)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_picked_up(ca_file: Path, change: Callable[[Path, bytes], None]) -> None:
    told = Told()
    store = TrustStore(ca_file, watcher=told)
    before = store.context

    change(ca_file, authority("another").cert_pem)
    store.refresh()
    store.refresh()

    assert trusted(store) == {"another"}
    assert store.context is not before
    assert told.said == ["renewed"]


@pytest.mark.parametrize("content", [b"", BROKEN, None], ids=["empty", "damaged", "gone"])
def test_a_bad_file_leaves_the_old_authorities_in_use_and_is_told_once(
    ca_file: Path, content: bytes | None
) -> None:
    told = Told()
    store = TrustStore(ca_file, watcher=told)
    before = store.context
    if content is None:
        ca_file.unlink()
    else:
        by_renaming(ca_file, content)

    for _ in range(3):
        store.refresh()

    assert store.context is before
    assert len(told.said) == 1
    assert told.said[0].startswith(f"upstream.ca_file: {ca_file} ")

    by_renaming(ca_file, authority().cert_pem)
    store.refresh()
    assert store.context is before
    assert told.said[1:] == ["renewed"], "the alarm is over"


def test_the_same_authorities_written_again_are_no_change(ca_file: Path) -> None:
    told = Told()
    store = TrustStore(ca_file, watcher=told)
    before = store.context

    by_renaming(ca_file, authority().cert_pem)
    store.refresh()

    assert store.context is before
    assert told.said == []


async def test_a_connection_of_before_the_change_serves_no_further_request(ca_file: Path) -> None:
    clock, seen = Clock(), Noted()
    tls = serving(server_certificate(), ca_file.parent)
    async with scripted_upstream(plainly, tls=tls) as api:
        with pool_to(api.url, ca_file=ca_file, now=clock, watcher=seen) as pool:
            await whole(await pool.send(upstream_request()))
            by_renaming(ca_file, authority("another").cert_pem)
            clock.at += LOOK_SECONDS

            with pytest.raises(UpstreamTlsError):
                await pool.send(upstream_request())

            both = authority("another").cert_pem + authority().cert_pem
            by_renaming(ca_file, both)
            clock.at += LOOK_SECONDS
            assert await whole(await pool.send(upstream_request())) == b"{}"

    assert seen.closes[0] == "trust"


async def test_an_answer_that_is_under_way_ends_before_its_connection_does(ca_file: Path) -> None:
    go, seen = asyncio.Event(), Noted()

    async def slowly(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await go.wait()
        await visit.say(b"world")

    tls = serving(server_certificate(), ca_file.parent)
    async with scripted_upstream(slowly, tls=tls) as api:
        with pool_to(api.url, ca_file=ca_file, watcher=seen) as pool:
            reply = await pool.send(upstream_request())
            by_renaming(ca_file, authority("another").cert_pem)
            pool.refresh_trust()
            go.set()

            assert await whole(reply) == b"helloworld"
            assert pool.idle == 0

    assert seen.closes == ["trust"]

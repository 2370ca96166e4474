"""What is wrong with a certificate or a key is said of the file that it is wrong with."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.errors import StartError
from icr_proxy.net.tls import MOST, read_identity
from tests.support.app_fixture import pem_of
from tests.support.certificate_authority import authority, issue, server_certificate

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

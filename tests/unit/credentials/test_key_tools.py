"""An authority of one's own: believed for its names, kept, and never mistaken for another's."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ssl
import stat
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.credentials.key_tools import (
    generate_key_pair,
    make_certificates,
    parse_key_facts,
    read_key_facts,
)
from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.errors import KeyUnusableError
from icr_proxy.net.tls import read_identity
from tests.support.app_fixture import app_key_pem
from tests.support.certificate_authority import Issued, authority, issue, server_certificate

NOW = dt.datetime.now(dt.UTC)  # noqa: TID251  # certificates have real dates
FILES = ("ca.crt", "ca.key", "tls.crt", "tls.key")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def handshake(folder: Path, host: str) -> None:
    """Have OpenSSL verify the chain as a client that trusts the authority."""
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    tls = TlsConfig(cert=folder / "tls.crt", key=folder / "tls.key")
    there = read_identity(tls, key="tls").context
    a, b, c, d = (ssl.MemoryBIO() for _ in range(4))
    client = context.wrap_bio(a, b, server_hostname=host)
    server = there.wrap_bio(c, d, server_side=True)
    for _ in range(4):
        for side, out, into in ((client, b, c), (server, d, a)):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            finally:
                into.write(out.read())


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["api.carbonregistry.com"], id="a name"),
        pytest.param(["127.0.0.1"], id="an address"),
        pytest.param(["::1", "[::1]"], id="an IPv6 address, twice"),
        pytest.param(["api.carbonregistry.com", "localhost", "127.0.0.1"], id="several"),
    ],
)
def test_a_client_that_trusts_the_authority_believes_the_certificate(
    tmp_path: Path, names: list[str]
) -> None:
    make_certificates(tmp_path / "tls", names, now=NOW)

    for name in names:
        handshake(tmp_path / "tls", name.strip("[]"))


@pytest.mark.parametrize(
    "san",
    [
        pytest.param(x509.DNSName("bank.example"), id="another site"),
        pytest.param(x509.IPAddress(ip_address("127.0.0.1")), id="an IP"),
    ],
)
def test_the_authority_is_believed_for_its_own_names_only(
    tmp_path: Path, san: x509.GeneralName
) -> None:
    """Its key lies on a developer's disk, and its certificate in a trust store."""
    made = make_certificates(tmp_path, ["api.carbonregistry.com"], now=NOW)
    stolen = authority_of(tmp_path)
    issue("x", by=stolen, names=(san,)).write(tmp_path)

    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        handshake(tmp_path, "127.0.0.1" if isinstance(san, x509.IPAddress) else "bank.example")
    assert made.is_new_ca


def authority_of(folder: Path) -> Issued:
    key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    return Issued(key=key, certificate=certificate)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path / "new" / "tls", ["localhost"], now=NOW)

    folder = tmp_path / "new" / "tls"
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in FILES}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "tls.crt": 0o644, "tls.key": 0o600}


def test_run_again_it_keeps_authority_and_key_and_renews_the_certificate(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, ["localhost", "127.0.0.1"], now=NOW)
    before = contents(tmp_path)
    second = make_certificates(tmp_path, ["localhost"], now=NOW + dt.timedelta(days=300))
    after = contents(tmp_path)

    assert [name for name in FILES if before[name] != after[name]] == ["tls.crt"]
    assert (first.is_new_ca, second.is_new_ca) == (True, False)
    assert second.expires_at - first.expires_at == dt.timedelta(days=300)


def test_it_does_not_promise_a_certificate_beyond_its_names(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    before = contents(tmp_path)

    with pytest.raises(KeyUnusableError, match=r"may not issue for other\.example"):
        make_certificates(tmp_path, ["localhost", "other.example"], now=NOW)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_half_a_pair_is_not_written_over(tmp_path: Path, missing: str) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    (tmp_path / missing).unlink()
    before = contents(tmp_path)

    with pytest.raises(KeyUnusableError, match="nothing was written"):
        make_certificates(tmp_path, ["localhost"], now=NOW)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", ["ca.crt", "ca.key"])
def test_half_an_authority_is_not_written_over(tmp_path: Path, missing: str) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    (tmp_path / missing).unlink()

    with pytest.raises(KeyUnusableError, match="nothing was written"):
        make_certificates(tmp_path, ["localhost"], now=NOW)


def test_a_lost_server_pair_is_made_anew(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    (tmp_path / "tls.crt").unlink()
    (tmp_path / "tls.key").unlink()

    assert not make_certificates(tmp_path, ["localhost"], now=NOW).is_new_ca
    handshake(tmp_path, "localhost")


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        pytest.param("tls", "server", id="a certificate of another authority"),
        pytest.param("ca", "authority", id="another authority"),
        pytest.param("ca", "rsa", id="a key of another kind"),
        pytest.param("tls", "rubbish", id="no certificate"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_files_of_others_are_left_alone(
    tmp_path: Path, name: str, foreign: str, *, begun: bool
) -> None:
    if begun:
        make_certificates(tmp_path, ["localhost"], now=NOW)
    if foreign in ("server", "authority"):
        issued = server_certificate() if foreign == "server" else authority()
        issued.write(tmp_path, name)
    elif foreign == "rsa":
        authority().write(tmp_path, name)
        (tmp_path / "ca.key").write_text(app_key_pem())
    else:
        (tmp_path / "tls.crt").write_text("precious")
        (tmp_path / "tls.key").write_text("precious")
    before = contents(tmp_path)

    with pytest.raises(KeyUnusableError, match="nothing was written"):
        make_certificates(tmp_path, ["localhost"], now=NOW)
    assert contents(tmp_path) == before


def test_a_server_pair_of_an_authority_that_has_gone_is_left_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.key").unlink()

    with pytest.raises(KeyUnusableError, match=r"tls\.crt and .*tls\.key are there"):
        make_certificates(tmp_path, ["localhost"], now=NOW)


def test_a_server_pair_of_another_authority_of_ours_is_left_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"], now=NOW)
    make_certificates(tmp_path / "other", ["localhost"], now=NOW)
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "other" / name).rename(tmp_path / name)

    with pytest.raises(KeyUnusableError, match=r"tls\.crt and .*tls\.key are there"):
        make_certificates(tmp_path, ["localhost"], now=NOW)


@pytest.mark.parametrize("name", ["https://api.example", "a b", "api.example:443", ""])
def test_what_is_no_host_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        make_certificates(tmp_path / "tls", [name], now=NOW)
    assert not (tmp_path / "tls").exists()


def public_pem(form: PublicFormat) -> str:
    key = load_pem_private_key(app_key_pem().encode(), password=None)
    return key.public_key().public_bytes(Encoding.PEM, form).decode()


def test_both_halves_of_a_pair_have_one_fingerprint() -> None:
    pair = generate_key_pair(2048)

    private = parse_key_facts(pair.private.decode(), source="a")
    public = parse_key_facts(pair.public.decode(), source="b")

    assert private.fingerprint == public.fingerprint
    assert (private.kind, private.encoding) == ("private", "PKCS#8")
    assert (public.kind, public.encoding, public.bits) == ("public", "SubjectPublicKeyInfo", 2048)


def test_a_pair_does_not_show_itself() -> None:
    assert "PRIVATE" not in repr(generate_key_pair(2048))


def test_the_fingerprint_is_the_sha256_of_the_public_keys_der() -> None:
    pem = public_pem(PublicFormat.SubjectPublicKeyInfo)
    der = load_pem_public_key(pem.encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(der).digest()

    facts = parse_key_facts(pem, source="a")

    assert facts.fingerprint == "SHA256:" + base64.b64encode(digest).decode()
    assert facts.hexadecimal == ":".join(f"{byte:02x}" for byte in digest)
    assert facts.fingerprint == parse_signing_key(app_key_pem(), source="a").fingerprint


def test_a_public_key_may_be_pkcs1() -> None:
    assert parse_key_facts(public_pem(PublicFormat.PKCS1), source="a").encoding == "PKCS#1"


def test_a_file_with_both_halves_is_a_private_key() -> None:
    both = public_pem(PublicFormat.SubjectPublicKeyInfo) + app_key_pem()

    assert parse_key_facts(both, source="a").kind == "private"


def elliptic() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("hello", "no PEM block", id="text"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nx\n", "a damaged public key", id="damaged"),
        pytest.param(elliptic(), "not RSA", id="elliptic"),
    ],
)
def test_what_is_no_rsa_key_is_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "k.pem"
    file.write_text(text)

    with pytest.raises(KeyUnusableError, match=words) as caught:
        read_key_facts(file)
    assert caught.value.detail.startswith(str(file))


def test_a_missing_file_is_told_without_words_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusableError) as caught:
        read_key_facts(tmp_path / "k.pem")
    assert caught.value.detail.startswith(f"{tmp_path / 'k.pem'} cannot be read")

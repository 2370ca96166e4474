"""An authority of one's own: believed for its names, kept, and never mistaken for another's."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.credentials.key_tools import make
from icr_proxy.errors import KeyUnusableError
from icr_proxy.net.tls import read_identity
from tests.support.app_fixture import app_key_pem
from tests.support.certificate_authority import Issued, authority, issue, server_certificate

if TYPE_CHECKING:
    from pathlib import Path

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
    make(tmp_path / "tls", names, now=NOW)

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
    made = make(tmp_path, ["api.carbonregistry.com"], now=NOW)
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
    make(tmp_path / "new" / "tls", ["localhost"], now=NOW)

    folder = tmp_path / "new" / "tls"
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in FILES}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "tls.crt": 0o644, "tls.key": 0o600}


def test_run_again_it_keeps_authority_and_key_and_renews_the_certificate(tmp_path: Path) -> None:
    first = make(tmp_path, ["localhost", "127.0.0.1"], now=NOW)
    before = contents(tmp_path)
    second = make(tmp_path, ["localhost"], now=NOW + dt.timedelta(days=300))
    after = contents(tmp_path)

    assert [name for name in FILES if before[name] != after[name]] == ["tls.crt"]
    assert (first.is_new_ca, second.is_new_ca) == (True, False)
    assert second.expires_at - first.expires_at == dt.timedelta(days=300)


def test_it_does_not_promise_a_certificate_beyond_its_names(tmp_path: Path) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    before = contents(tmp_path)

    with pytest.raises(KeyUnusableError, match=r"may not issue for other\.example"):
        make(tmp_path, ["localhost", "other.example"], now=NOW)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_half_a_pair_is_not_written_over(tmp_path: Path, missing: str) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    (tmp_path / missing).unlink()
    before = contents(tmp_path)

    with pytest.raises(KeyUnusableError, match="nothing was written"):
        make(tmp_path, ["localhost"], now=NOW)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", ["ca.crt", "ca.key"])
def test_half_an_authority_is_not_written_over(tmp_path: Path, missing: str) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    (tmp_path / missing).unlink()

    with pytest.raises(KeyUnusableError, match="nothing was written"):
        make(tmp_path, ["localhost"], now=NOW)


def test_a_lost_server_pair_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    (tmp_path / "tls.crt").unlink()
    (tmp_path / "tls.key").unlink()

    assert not make(tmp_path, ["localhost"], now=NOW).is_new_ca
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
        make(tmp_path, ["localhost"], now=NOW)
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
        make(tmp_path, ["localhost"], now=NOW)
    assert contents(tmp_path) == before


def test_a_server_pair_of_an_authority_that_has_gone_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.key").unlink()

    with pytest.raises(KeyUnusableError, match=r"tls\.crt and .*tls\.key are there"):
        make(tmp_path, ["localhost"], now=NOW)


def test_a_server_pair_of_another_authority_of_ours_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, ["localhost"], now=NOW)
    make(tmp_path / "other", ["localhost"], now=NOW)
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "other" / name).rename(tmp_path / name)

    with pytest.raises(KeyUnusableError, match=r"tls\.crt and .*tls\.key are there"):
        make(tmp_path, ["localhost"], now=NOW)


@pytest.mark.parametrize("name", ["https://api.example", "a b", "api.example:443", ""])
def test_what_is_no_host_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        make(tmp_path / "tls", [name], now=NOW)
    assert not (tmp_path / "tls").exists()

import base64
import datetime as dt
import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

from icr_proxy.credentials.key_tools import encoding_of
from icr_proxy.credentials.signing_key import (
    SigningKey,
    derive,
    fingerprint,
    is_consistent,
    load_key_file,
    parse_signing_key,
    read_key_file,
    seal,
    unseal,
)
from icr_proxy.errors import KeyUnusableError
from tests.support.app_fixture import app_key_pem

PLAIN = serialization.NoEncryption()
LOCKED = serialization.BestAvailableEncryption(b"a pass phrase")


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def another_pem() -> str:
    return pkcs8(rsa_key())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, form, PLAIN).decode()


def pkcs1(key: rsa.RSAPrivateKey) -> str:
    return pem(key, PrivateFormat.TraditionalOpenSSL)


def pkcs8(key: rsa.RSAPrivateKey) -> str:
    return pem(key, PrivateFormat.PKCS8)


def with_another_factor() -> str:
    """Give a key that parses but whose numbers do not agree, as after a fault on a disk."""
    factor = rsa_key().private_numbers().p
    another = factor ^ 1 << 512
    der = rsa_key().private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, PLAIN)
    damaged = base64.b64encode(der.replace(factor.to_bytes(128), another.to_bytes(128))).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{damaged}\n-----END RSA PRIVATE KEY-----\n"


def one_line(text: str, *, joint: str) -> str:
    return joint.join(text.splitlines())


@cache
def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "app")])
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, rsa_key().public_key(), x509.random_serial_number())
        .not_valid_before(at)
        .not_valid_after(at + dt.timedelta(days=1))
        .sign(rsa_key(), hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def public(form: PublicFormat) -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, form).decode()


# -- what is accepted -----------------------------------------------------------------------------

DRESSES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR alone": lambda text: text.replace("\n", "\r"),
    "newlines escaped": lambda text: text.replace("\n", "\\n"),
    "newlines escaped as CRLF": lambda text: text.replace("\n", "\\r\\n"),
    "newlines escaped twice": lambda text: text.replace("\n", "\\\\n"),
    "newlines became spaces": lambda text: one_line(text, joint=" "),
    "newlines lost": lambda text: one_line(text, joint=""),
    "no newline at the end": lambda text: text.rstrip(),
    "indented (YAML block)": lambda text: text.replace("\n", "\n    "),
    "byte order mark": lambda text: "\ufeff" + text,
    "double quotes": lambda text: f'"{text}"',
    "single quotes, escaped": lambda text: "'" + text.replace("\n", "\\n") + "'",
    "text around": lambda text: f"Bag Attributes\n  friendlyName: app\n{text}\nend of file\n",
    "a certificate before it": lambda text: certificate() + text,
    "a certificate after it": lambda text: text + certificate(),
    "the public key before it": lambda text: public(PublicFormat.SubjectPublicKeyInfo) + text,
    "blank lines between": lambda text: text.replace("\n", "\n\n"),
    "base64 of it (a Secret's data)": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 in escaped lines": lambda text: (
        base64.encodebytes(text.encode()).decode().replace("\n", "\\n")
    ),
    "base64 with a mark, of it with a mark": lambda text: (
        "\ufeff" + base64.b64encode(text.encode("utf-8-sig")).decode() + "\r\n"
    ),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16")).decode(),
    "slashes escaped (JSON)": lambda text: text.replace("/", "\\/"),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
@pytest.mark.parametrize("write", [pkcs1, pkcs8])
def test_a_key_is_read_in_whatever_state_it_arrives(
    write: Callable[[rsa.RSAPrivateKey], str], dress: Callable[[str], str]
) -> None:
    key = parse_signing_key(dress(write(rsa_key())), source="app.private_key")

    assert key.fingerprint == fingerprint(rsa_key().public_key())


@pytest.mark.parametrize("dress", ["as it is", "CRLF", "byte order mark", "newlines lost"])
def test_the_same_goes_for_files(tmp_path: Path, dress: str) -> None:
    path = tmp_path / "app.pem"
    path.write_text(DRESSES[dress](pkcs8(rsa_key())), encoding="utf-8", newline="")

    key = load_key_file(path)

    assert key.fingerprint == fingerprint(rsa_key().public_key())


# -- what is not ----------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "nothing"),
    "white space": (lambda: " \n\t", "nothing"),
    "no PEM": (lambda: "hunter2", "no PEM block"),
    "a path": (lambda: "/etc/icr-proxy/app.pem", "no PEM block"),
    "public key": (lambda: public(PublicFormat.SubjectPublicKeyInfo), "a public key"),
    "public key, PKCS#1": (lambda: public(PublicFormat.PKCS1), "a public key"),
    "certificate": (certificate, "a certificate"),
    "EC, SEC 1": (
        lambda: pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
        "a private key of another kind (EC)",
    ),
    "EC, with its parameters first": (
        lambda: (
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
            + pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL)
        ),
        "a private key of another kind (EC)",
    ),
    "EC, PKCS#8": (
        lambda: pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.PKCS8),
        "a private key of another kind (EC)",
    ),
    "DSA": (
        lambda: (
            dsa.generate_private_key(1024)
            .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PLAIN)
            .decode()
        ),
        "a private key of another kind (DSA)",
    ),
    "Ed25519": (
        lambda: (
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)
            .decode()
        ),
        "a private key of another kind (Ed25519)",
    ),
    "encrypted, PKCS#8": (
        lambda: rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, LOCKED).decode(),
        "an encrypted private key",
    ),
    "encrypted, PKCS#1": (
        lambda: (
            rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, LOCKED).decode()
        ),
        "an encrypted private key",
    ),
    "encrypted, newlines lost": (
        lambda: one_line(
            rsa_key()
            .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, LOCKED)
            .decode(),
            joint=" ",
        ),
        "an encrypted private key",
    ),
    "OpenSSH": (
        lambda: rsa_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, PLAIN).decode(),
        "an OpenSSH private key",
    ),
    "cut off": (lambda: pkcs8(rsa_key())[:800], "a damaged or cut-off private key"),
    "cut off, after a certificate": (
        lambda: certificate() + pkcs8(rsa_key())[:800],
        "a damaged or cut-off private key",
    ),
    "cut off, EC": (
        lambda: pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL)[:80],
        "an EC private key",
    ),
    "its end alone": (lambda: pkcs8(rsa_key())[800:], "no PEM block"),
    "a piece missing": (
        lambda: pkcs8(rsa_key())[:400] + pkcs8(rsa_key())[500:],
        "a damaged or cut-off private key",
    ),
    "one bit is another": (with_another_factor, "a damaged or cut-off private key"),
    "not base64": (
        lambda: "-----BEGIN PRIVATE KEY-----\n🔑\n-----END PRIVATE KEY-----\n",
        "a damaged or cut-off private key",
    ),
    "only the frame": (
        lambda: "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        "a damaged or cut-off private key",
    ),
    "bytes that are no text": (
        lambda: "-----BEGIN PRIVATE KEY-----\n\udcff\n-----END PRIVATE KEY-----\n",
        "a damaged or cut-off private key",
    ),
}


def shows_key_material(said: str, text: str) -> bool:
    lines = [line for line in text.splitlines() if len(line) > 30 and "---" not in line]
    return any(line[:20] in said for line in lines)


@pytest.mark.parametrize(("make", "found"), WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_named_for_what_it_is(make: Callable[[], str], found: str) -> None:
    text = make()

    with pytest.raises(KeyUnusableError) as caught:
        parse_signing_key(text, source="app.private_key")

    said = caught.value.detail
    assert said.startswith(f"app.private_key holds {found}")
    assert "an RSA private key as PEM (PKCS#1 or PKCS#8, not encrypted) is needed" in said
    assert not shows_key_material(said + repr(caught.value), text)


@pytest.mark.parametrize("bits", [1024, 2047], ids=["1024 bits", "one bit short"])
def test_a_short_key_is_told_its_length(bits: int) -> None:
    with pytest.raises(KeyUnusableError, match=f"an RSA key of {bits} bits; RS256 needs 2048"):
        parse_signing_key(pkcs8(rsa_key(bits)), source="app.private_key")


def be_missing(path: Path) -> None:
    """Make nothing."""


def be_a_directory(path: Path) -> None:
    path.mkdir()


def be_unreadable(path: Path) -> None:
    path.symlink_to(path)  # holds for root as well, unlike a mode


def be_large(path: Path) -> None:
    path.write_text(app_key_pem() + "#" * 64 * 1024, encoding="utf-8")


def be_der(path: Path) -> None:
    path.write_bytes(rsa_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, PLAIN))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (be_missing, "cannot be read: No such file or directory"),
        (be_a_directory, "cannot be read: Is a directory"),
        (be_unreadable, "cannot be read: Too many levels of symbolic links"),
        (be_large, "is over 64 KiB"),
        (be_der, "holds binary data, perhaps DER"),
    ],
    ids=["missing", "directory", "unreadable", "large", "DER"],
)
def test_a_wrong_file_is_named_for_what_it_is(
    tmp_path: Path, make: Callable[[Path], None], found: str
) -> None:
    path = tmp_path / "app.pem"
    make(path)

    with pytest.raises(KeyUnusableError) as caught:
        load_key_file(path)

    assert caught.value.detail.startswith(f"app.private_key_file {path} {found}")
    assert "an RSA private key as PEM" in caught.value.detail


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("base64_of_it", [False, True], ids=["PEM", "base64"])
def test_a_key_file_is_read_in_the_encodings_of_windows(
    tmp_path: Path, encoding: str, *, base64_of_it: bool
) -> None:
    path = tmp_path / "app.pem"
    text = app_key_pem()
    path.write_text(
        base64.b64encode(text.encode()).decode() if base64_of_it else text, encoding=encoding
    )

    assert load_key_file(path).fingerprint == parse_signing_key(text, source="t").fingerprint
    assert encoding_of(read_key_file(path)) == encoding_of(text)


def test_quotes_around_base64_are_named(tmp_path: Path) -> None:
    path = tmp_path / "app.pem"
    quoted = '"' + base64.b64encode(app_key_pem().encode()).decode() + '"'
    path.write_text(quoted)

    with pytest.raises(KeyUnusableError, match="holds a text in quotes") as caught:
        load_key_file(path)

    assert quoted[1:40] not in caught.value.detail


def test_a_pipe_into_which_nobody_writes_does_not_stop_the_start_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    monkeypatch.setattr("icr_proxy.credentials.signing_key.PIPE_SECONDS", 0.01)

    with pytest.raises(KeyUnusableError, match="nobody wrote into the pipe"):
        load_key_file(path, may_wait=True)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(KeyUnusableError, match="cannot be read: Not a regular file"):
        load_key_file(path)


def test_a_pipe_is_read_if_waiting_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(app_key_pem(),))
    writer.start()

    key = load_key_file(path, may_wait=True)
    writer.join()

    assert key.fingerprint == parse_signing_key(app_key_pem(), source="test").fingerprint


# -- signing --------------------------------------------------------------------------------------


def test_what_is_signed_verifies_with_the_public_key() -> None:
    claims = {"iss": "app", "exp": 4_000_000_000, "alg": "RS256"}

    signed = SigningKey(rsa_key()).sign(claims)

    assert jwt.decode(signed, rsa_key().public_key(), algorithms=["RS256"]) == claims
    assert jwt.get_unverified_header(signed) == {"alg": "RS256", "typ": "JWT"}


def test_a_signature_is_pkcs1_v15_over_what_was_said() -> None:
    signed = SigningKey(rsa_key()).sign({"iss": "app"})
    said, _, signature = signed.rpartition(".")

    rsa_key().public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        said.encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )


def test_the_fingerprint_is_over_the_public_half_in_the_form_of_github_apps() -> None:
    der = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected = "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()

    key = SigningKey(rsa_key())

    assert key.fingerprint == expected
    assert repr(key) == f"SigningKey({expected})"


def test_the_same_key_in_another_form_makes_the_same_key_and_another_key_another() -> None:
    one, again = (
        parse_signing_key(form(rsa_key()), source="s").derive(purpose=b"p")
        for form in (pkcs1, pkcs8)
    )
    other = parse_signing_key(app_key_pem(), source="s").derive(purpose=b"p")

    assert one == again
    assert len({one, other}) == 2
    assert len(one) == 32


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def with_one_other(name: str, change: int = 2) -> rsa.RSAPrivateNumbers:
    """Give the numbers of a good key, of which one is not what it was."""
    good = key().private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    private = {each: getattr(good, each) for each in names}
    public = {"e": good.public_numbers.e, "n": good.public_numbers.n}
    changed = private if name in private else public
    changed[name] += change
    return rsa.RSAPrivateNumbers(**private, public_numbers=rsa.RSAPublicNumbers(**public))


def test_those_of_a_good_key_do() -> None:
    assert is_consistent(key().private_numbers())


@pytest.mark.parametrize("name", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "e", "n"])
def test_one_that_is_another_is_found(name: str) -> None:
    assert not is_consistent(with_one_other(name))


@pytest.mark.parametrize("name", ["p", "q"])
@pytest.mark.parametrize("factor", [0, 1, 2], ids=str)
def test_factors_that_are_none_are_found(name: str, factor: int) -> None:
    good: int = getattr(key().private_numbers(), name)

    assert not is_consistent(with_one_other(name, factor - good))


def test_an_inverse_that_is_too_large_is_found() -> None:
    assert not is_consistent(with_one_other("iqmp", key().private_numbers().p))


ONE, TWO = derive(b"one", purpose=b"p"), derive(b"two", purpose=b"p")
NAME, NONCE = b"name", b"n" * 12
SEALED = seal(b"text", name=NAME, key=ONE, nonce=NONCE)


def test_what_is_sealed_opens_with_its_key_and_under_its_name() -> None:
    assert unseal(SEALED, name=NAME, keys=[ONE]) == b"text"
    assert b"text" not in SEALED


def test_any_of_several_keys_may_open() -> None:
    assert unseal(SEALED, name=NAME, keys=[TWO, ONE]) == b"text"


@pytest.mark.parametrize(
    ("sealed", "name", "keys"),
    [
        pytest.param(SEALED, b"other", [ONE], id="moved to another name"),
        pytest.param(SEALED, NAME, [TWO], id="another key"),
        pytest.param(SEALED, NAME, [], id="no key"),
        pytest.param(SEALED[:-1] + bytes([SEALED[-1] ^ 1]), NAME, [ONE], id="one bit changed"),
        pytest.param(b"x" + SEALED[1:], NAME, [ONE], id="another nonce"),
        pytest.param(SEALED[:20], NAME, [ONE], id="cut off"),
        pytest.param(SEALED[:12], NAME, [ONE], id="nonce only"),
        pytest.param(SEALED[:5], NAME, [ONE], id="less than a nonce"),
        pytest.param(b"", NAME, [ONE], id="nothing"),
        pytest.param(b"text" * 20, NAME, [ONE], id="garbage"),
    ],
)
def test_nothing_else_opens(sealed: bytes, name: bytes, keys: list[bytes]) -> None:
    assert unseal(sealed, name=name, keys=keys) is None


def test_a_key_for_one_purpose_is_not_the_key_for_another() -> None:
    assert derive(b"one", purpose=b"p") != derive(b"one", purpose=b"q")
    assert len({ONE, TWO}) == 2

"""Key files for people: fingerprints that others compute too, files that nobody else can read."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from icr_proxy.credentials.key_tools import new_pair, parse_facts, read_facts
from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.errors import KeyUnusableError
from icr_proxy.files import write_key
from tests.support.app_fixture import app_key_pem
from tests.unit.audit.test_writer import files_no_longer_than


def public_pem(form: PublicFormat) -> str:
    key = load_pem_private_key(app_key_pem().encode(), password=None)
    return key.public_key().public_bytes(Encoding.PEM, form).decode()


def test_both_halves_of_a_pair_have_one_fingerprint() -> None:
    pair = new_pair(2048)

    private = parse_facts(pair.private.decode(), source="a")
    public = parse_facts(pair.public.decode(), source="b")

    assert private.fingerprint == public.fingerprint
    assert (private.kind, private.encoding) == ("private", "PKCS#8")
    assert (public.kind, public.encoding, public.bits) == ("public", "SubjectPublicKeyInfo", 2048)


def test_a_pair_does_not_show_itself() -> None:
    assert "PRIVATE" not in repr(new_pair(2048))


def test_the_fingerprint_is_the_sha256_of_the_public_keys_der() -> None:
    pem = public_pem(PublicFormat.SubjectPublicKeyInfo)
    der = load_pem_public_key(pem.encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(der).digest()

    facts = parse_facts(pem, source="a")

    assert facts.fingerprint == "SHA256:" + base64.b64encode(digest).decode()
    assert facts.hexadecimal == ":".join(f"{byte:02x}" for byte in digest)
    assert facts.fingerprint == parse_signing_key(app_key_pem(), source="a").fingerprint


def test_a_public_key_may_be_pkcs1() -> None:
    assert parse_facts(public_pem(PublicFormat.PKCS1), source="a").encoding == "PKCS#1"


def test_a_file_with_both_halves_is_a_private_key() -> None:
    both = public_pem(PublicFormat.SubjectPublicKeyInfo) + app_key_pem()

    assert parse_facts(both, source="a").kind == "private"


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
        read_facts(file)
    assert caught.value.detail.startswith(str(file))


def test_a_missing_file_is_told_without_words_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusableError) as caught:
        read_facts(tmp_path / "k.pem")
    assert caught.value.detail.startswith(f"{tmp_path / 'k.pem'} cannot be read")


@pytest.mark.parametrize("replace", [False, True])
def test_a_written_key_is_readable_by_its_owner_alone(tmp_path: Path, *, replace: bool) -> None:
    file = tmp_path / "k.pem"

    write_key(file, b"pem", mode=0o600, replace=replace)

    assert file.read_bytes() == b"pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_an_open_file_that_is_replaced_becomes_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "k.pem"
    file.write_text("old")
    file.chmod(0o644)

    write_key(file, b"new", mode=0o600, replace=True)

    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    file = tmp_path / "k.pem"
    file.write_text("old")

    with pytest.raises(FileExistsError):
        write_key(file, b"new", mode=0o600, replace=False)
    assert file.read_text() == "old"


def test_what_cannot_be_put_in_place_leaves_no_draft(tmp_path: Path) -> None:
    folder = tmp_path / "k.pem"
    folder.mkdir()

    with pytest.raises(OSError, match=r"k\.pem"):
        write_key(folder, b"new", mode=0o600, replace=True)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_draft_that_a_crash_left_stands_in_nobodys_way(tmp_path: Path) -> None:
    """In a container each process has the number of the one before."""
    (tmp_path / f".key.{os.getpid()}").touch()

    write_key(tmp_path / "key", b"pem", mode=0o600, replace=True)

    assert (tmp_path / "key").read_bytes() == b"pem"


@pytest.mark.parametrize("replace", [True, False])
def test_a_key_is_written_through_no_link(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "key").symlink_to("precious")

    with suppress(FileExistsError):
        write_key(tmp_path / "key", b"pem", mode=0o600, replace=replace)

    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "key").is_symlink() != replace


@pytest.mark.parametrize("replace", [True, False])
def test_a_key_that_does_not_fit_leaves_nothing(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    with files_no_longer_than(10), pytest.raises(OSError, match="too large"):
        write_key(tmp_path / "key", b"k" * 100, mode=0o600, replace=replace)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_key_does_not_take_the_place_of_a_pipe_or_a_device(tmp_path: Path, name: str) -> None:
    """As root, `--out /dev/null` or `/dev/stdout` would replace it for the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")

    with pytest.raises(OSError, match="Not a regular file"):
        write_key(tmp_path / name, b"pem", mode=0o600, replace=True)

    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "link"}
    assert (tmp_path / "link").is_symlink()

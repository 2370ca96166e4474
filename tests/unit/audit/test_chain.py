from __future__ import annotations

import hmac
import json

import pytest

from icr_proxy.audit.chain import (
    GENESIS,
    BrokenRecordError,
    ChainHead,
    MacKey,
    read_link,
    read_next,
)
from tests.support.audit_fixture import seal

SECRET = b"k" * 64
KEY = MacKey(SECRET)
BODY = b'{"kind":"request","time":"2026-11-25T02:57:55.558+00:00","status":200}'


def test_a_record_names_the_hash_of_the_one_before() -> None:
    first, head = seal(BODY, after=ChainHead(), mac_key=KEY)
    second, _ = seal(BODY, after=head, mac_key=KEY)

    assert json.loads(first)["prev"] == GENESIS
    assert json.loads(second)["prev"] == json.loads(first)["hash"] == head.hash
    assert [json.loads(line)["seq"] for line in (first, second)] == [1, 2]


def test_a_line_is_json_with_all_that_was_said() -> None:
    line, _ = seal(BODY, after=ChainHead(), mac_key=KEY)

    assert json.loads(line).items() >= json.loads(BODY).items()


@pytest.mark.parametrize("key", [KEY, None], ids=["sealed", "hashes only"])
def test_what_was_sealed_is_unsealed(key: MacKey | None) -> None:
    line, head = seal(BODY, after=ChainHead(4, "a" * 64), mac_key=key)

    link = read_link(line, mac_key=key)

    assert (link.seq, link.prev, link.kind, link.hash) == (5, "a" * 64, "request", head.hash)
    assert link.sealed == (key is not None)


def test_every_flipped_bit_is_found() -> None:
    line, _ = seal(BODY, after=ChainHead(), mac_key=KEY)

    for at in range(len(line) * 8):
        changed = bytearray(line)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(BrokenRecordError):
            read_link(bytes(changed), mac_key=KEY)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        pytest.param(MacKey(b"x" * 64), "another key", id="another key"),
        pytest.param(None, "no MAC", id="no key"),
    ],
)
def test_a_record_sealed_by_somebody_else_is_forged(key: MacKey | None, why: str) -> None:
    line, _ = seal(BODY, after=ChainHead(), mac_key=key)

    with pytest.raises(BrokenRecordError, match=why) as caught:
        read_link(line, mac_key=KEY)

    assert caught.value.kind == "forged"


@pytest.mark.parametrize("line", [b"", b"{}", b"\0" * 900, b"x" * 900])
def test_what_is_no_record_is_said_to_be_changed(line: bytes) -> None:
    with pytest.raises(BrokenRecordError, match="is not a record") as caught:
        read_link(line, mac_key=None)

    assert caught.value.kind == "changed"


def test_without_the_key_the_chain_can_still_be_checked() -> None:
    line, head = seal(BODY, after=ChainHead(), mac_key=KEY)

    assert read_link(line, mac_key=None).hash == head.hash


def test_a_float_holds_the_number_of_a_head_exactly() -> None:
    head = ChainHead(1, "f" * 64)

    assert int(float(head.number)) == head.number == 0xFFFFFFFFFFFF


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_seals_are_hmac(length: int) -> None:
    key, digest = bytes(range(length)), b"d" * 32

    assert MacKey(key).mac(digest).decode() == hmac.new(key, digest, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("key", "mac"),
    [
        pytest.param(
            b"k" * 64,
            "cccfe021fb2b12957b4afc8bd3ad440f202709dbe4f19b40aa6bebac9226559b",
            id="as long as a block",
        ),
        pytest.param(
            b"k" * 100,
            "426c98c4cd707f3753b5ab7ff9199661dbf9c29b6aa8c5509fcbabb01c151fd1",
            id="longer than a block",
        ),
    ],
)
def test_what_is_on_disk_stays_the_same(key: bytes, mac: str) -> None:
    body = b'{"kind":"start","time":"2026-10-01T00:00:00.000+00:00","version":"1","config":"c"}'

    line, _ = seal(body, after=ChainHead(), mac_key=MacKey(key))

    assert line.decode() == (
        f'{{"seq":1,"prev":"{GENESIS}","kind":"start","time":"2026-10-01T00:00:00.000+00:00",'
        '"version":"1","config":"c",'
        '"hash":"c705013c86e23022f69540b7ec65980b8b2a25fd1bcccfd75df0ce2b04573927",'
        f'"mac":"{mac}"}}'
    )


@pytest.mark.parametrize("key", [KEY, None], ids=["sealed", "hashes only"])
def test_only_the_next_record_follows(key: MacKey | None) -> None:
    line, head = seal(BODY, after=ChainHead(), mac_key=key)
    second, _ = seal(BODY, after=head, mac_key=key)

    assert read_next(line, after=ChainHead(), mac_key=key) == read_link(line, mac_key=key)
    assert read_next(second, after=ChainHead(), mac_key=key) is None
    assert read_next(line, after=head, mac_key=key) is None
    assert read_next(b"", after=ChainHead(), mac_key=key) is None


def test_no_line_with_a_flipped_bit_follows() -> None:
    line, _ = seal(BODY, after=ChainHead(), mac_key=KEY)

    for at in range(len(line) * 8):
        changed = bytearray(line)
        changed[at // 8] ^= 1 << at % 8
        assert read_next(bytes(changed), after=ChainHead(), mac_key=KEY) is None

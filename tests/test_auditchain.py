from __future__ import annotations

import json

import pytest

from proxy.auditchain import GENESIS, BrokenRecordError, Head, seal, unseal

KEY = b"k" * 64
BODY = b'{"kind":"request","time":"2026-11-25T02:57:55.558+00:00","status":200}'


def test_a_record_names_the_hash_of_the_one_before() -> None:
    first, head = seal(BODY, after=Head(), key=KEY)
    second, _ = seal(BODY, after=head, key=KEY)

    assert json.loads(first)["prev"] == GENESIS
    assert json.loads(second)["prev"] == json.loads(first)["hash"] == head.hash
    assert [json.loads(line)["seq"] for line in (first, second)] == [1, 2]


def test_a_line_is_json_with_all_that_was_said() -> None:
    line, _ = seal(BODY, after=Head(), key=KEY)

    assert json.loads(line).items() >= json.loads(BODY).items()


@pytest.mark.parametrize("key", [KEY, None], ids=["sealed", "hashes only"])
def test_what_was_sealed_is_unsealed(key: bytes | None) -> None:
    line, head = seal(BODY, after=Head(4, "a" * 64), key=key)

    link = unseal(line, key=key)

    assert (link.seq, link.prev, link.kind, link.hash) == (5, "a" * 64, "request", head.hash)
    assert link.sealed == (key is not None)


def test_every_flipped_bit_is_found() -> None:
    line, _ = seal(BODY, after=Head(), key=KEY)

    for at in range(len(line) * 8):
        changed = bytearray(line)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(BrokenRecordError):
            unseal(bytes(changed), key=KEY)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        pytest.param(b"x" * 64, "another key", id="another key"),
        pytest.param(None, "no MAC", id="no key"),
    ],
)
def test_a_record_sealed_by_somebody_else_is_forged(key: bytes | None, why: str) -> None:
    line, _ = seal(BODY, after=Head(), key=key)

    with pytest.raises(BrokenRecordError, match=why) as caught:
        unseal(line, key=KEY)

    assert caught.value.kind == "forged"


@pytest.mark.parametrize("line", [b"", b"{}", b"\0" * 900, b"x" * 900])
def test_what_is_no_record_is_said_to_be_changed(line: bytes) -> None:
    with pytest.raises(BrokenRecordError, match="is not a record") as caught:
        unseal(line, key=None)

    assert caught.value.kind == "changed"


def test_without_the_key_the_chain_can_still_be_checked() -> None:
    line, head = seal(BODY, after=Head(), key=KEY)

    assert unseal(line, key=None).hash == head.hash


def test_a_float_holds_the_number_of_a_head_exactly() -> None:
    head = Head(1, "f" * 64)

    assert int(float(head.number)) == head.number == 0xFFFFFFFFFFFF

"""The texts of real and likely error bodies, and whether a new token would help."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from icr_proxy.forwarding.response_classification import (
    INSPECT_LIMIT,
    is_token_rejection,
    may_be_about_token,
)

JSON = [(b"Content-Type", b"application/json; charset=utf-8")]


def body(message: object, **rest: object) -> bytes:
    return json.dumps({"statusCode": 403, "message": message, "error": "Forbidden"} | rest).encode()


@pytest.mark.parametrize(
    ("message", "bad"),
    [
        pytest.param("Access token invalid", True, id="as observed"),
        pytest.param(["Access token invalid"], True, id="in a list"),
        pytest.param(["other", "token expired"], True, id="second in a list"),
        pytest.param("jwt expired", True, id="jsonwebtoken"),
        pytest.param("invalid token", True, id="the other way round"),
        pytest.param("The token was revoked", True, id="revoked"),
        pytest.param("Bearer missing", True, id="missing"),
        pytest.param("Token not  valid", True, id="not valid"),
        pytest.param("TOKEN NOT FOUND", True, id="not found"),
        pytest.param("Forbidden resource", False, id="the framework's own"),
        pytest.param("Forbidden", False, id="bare"),
        pytest.param("Insufficient permissions", False, id="permissions"),
        pytest.param("Token has invalid permissions for inventory", False, id="of a token"),
        pytest.param("Token not permitted: invalid scope", False, id="scope"),
        pytest.param("token role unknown", False, id="role"),
        pytest.param("Not your token", False, id="a token, not bad"),
        pytest.param("Invalid credit", False, id="bad, no token"),
        pytest.param("tokenId invalid", False, id="a credit's token id"),
        pytest.param("", False, id="empty"),
        pytest.param([], False, id="empty list"),
    ],
)
def test_a_message_is_about_the_token_or_about_permissions(message: object, *, bad: bool) -> None:
    assert is_token_rejection(body(message), encoding=None) is bad


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(raw, id=name)
        for name, raw in {
            "no message": b"{}",
            "null": body(None),
            "number": body(5),
            "object": body({"token": "invalid"}),
            "list of numbers": body([1, 2]),
            "not an object": b'["token invalid"]',
            "not JSON": b"token invalid",
            "cut off": body("Access token invalid")[:-1],
            "not UTF-8": body("x").replace(b"x", b"token invalid \xff"),
            "empty": b"",
            "NUL": b"\0",
            "deep": b'{"message":' * 3000,
            "deep in a member that nobody reads": b'{"a":' + b"[" * 100_000,
        }.items()
    ],
)
def test_what_cannot_be_understood_is_not_about_the_token(raw: bytes) -> None:
    assert is_token_rejection(raw, encoding=None) is False


BAD = body("Access token invalid")


@pytest.mark.parametrize(
    ("raw", "encoding", "bad"),
    [
        pytest.param(BAD, b"identity", True, id="identity"),
        pytest.param(gzip.compress(BAD), b"gzip", True, id="gzip"),
        pytest.param(gzip.compress(BAD), b" GZip ", True, id="odd case"),
        pytest.param(gzip.compress(BAD), b"x-gzip", True, id="x-gzip"),
        pytest.param(zlib.compress(BAD), b"deflate", True, id="deflate"),
        pytest.param(gzip.compress(BAD)[:-20], b"gzip", False, id="cut off"),
        pytest.param(BAD, b"gzip", False, id="not gzip at all"),
        pytest.param(gzip.compress(gzip.compress(BAD)), b"gzip, gzip", True, id="twice"),
        pytest.param(BAD, b"br", False, id="unknown"),
        pytest.param(gzip.compress(BAD), None, False, id="not said"),
    ],
)
def test_a_compressed_body_is_looked_into(raw: bytes, encoding: bytes | None, *, bad: bool) -> None:
    assert is_token_rejection(raw, encoding=encoding) is bad


def test_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b'{"message":"' + b" " * 100_000_000)
    tracemalloc.start()

    verdict = is_token_rejection(bomb, encoding=b"gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert verdict is False
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("status", "headers", "worth_it"),
    [
        pytest.param(403, JSON, True, id="JSON without length"),
        pytest.param(403, [*JSON, (b"content-length", b"100")], True, id="small"),
        pytest.param(403, [*JSON, (b"Content-Length", b"%d" % INSPECT_LIMIT)], True, id="largest"),
        pytest.param(
            403, [*JSON, (b"Content-Length", b"%d" % (INSPECT_LIMIT + 1))], False, id="too large"
        ),
        pytest.param(403, [(b"content-type", b"application/problem+JSON")], True, id="any JSON"),
        pytest.param(403, [(b"Content-Type", b"text/html")], False, id="HTML"),
        pytest.param(403, [], False, id="no type"),
        pytest.param(403, JSON * 2, False, id="two types"),
        pytest.param(401, JSON, False, id="401 needs no reading"),
        pytest.param(200, JSON, False, id="200"),
    ],
)
def test_only_a_small_json_403_is_read(
    status: int, headers: list[tuple[bytes, bytes]], *, worth_it: bool
) -> None:
    assert may_be_about_token(status, headers) is worth_it

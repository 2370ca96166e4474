"""What a head may say; the bytes themselves are tried in `test_reply`."""

from __future__ import annotations

import pytest

from proxy.answerhead import has_length, is_ours, is_plain


@pytest.mark.parametrize(
    ("version", "status", "reason", "ours"),
    [
        pytest.param("1.1", 200, b"OK", True, id="as usual"),
        pytest.param("1.0", 404, b"Not Found", True, id="1.0"),
        pytest.param("1.1", 100, b"", True, id="interim"),
        pytest.param("1.1", 200, b"Gr\xfc\xdfe\t!", True, id="obs-text and tab"),
        pytest.param("0.9", 200, b"OK", False, id="0.9"),
        pytest.param("2.0", 200, b"OK", False, id="2.0"),
        pytest.param("1.1", 101, b"Switching Protocols", False, id="101"),
        pytest.param("1.1", 99, b"OK", False, id="no status"),
        pytest.param("1.1", 200, b"O\x06K", False, id="control"),
        pytest.param("1.1", 200, b"O\x7fK", False, id="delete"),
    ],
)
def test_a_first_line_is_that_of_an_answer_to_us(
    version: str, status: int, reason: bytes, *, ours: bool
) -> None:
    assert is_ours(version=version, status=status, reason=reason) is ours


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param([], False, id="none"),
        pytest.param([b"Content-Length"], True, id="length"),
        pytest.param([b"CONTENT-LENGTH"], True, id="in capitals"),
        pytest.param([b"content-lengtx"], False, id="as long as a length"),
        pytest.param([b"content-lengtx", b"Content-Length"], True, id="length among others"),
        pytest.param([b"Transfer-Encoding"], False, id="coding"),
    ],
)
def test_the_length_of_a_body_is_told_by_one_header(names: list[bytes], *, told: bool) -> None:
    assert has_length([(name, b"v") for name in names]) is told


@pytest.mark.parametrize(
    ("codings", "version", "status", "plain"),
    [
        pytest.param([b" Chunked "], "1.1", 200, True, id="chunked"),
        pytest.param([b"chunked"], "1.0", 200, False, id="in 1.0"),
        pytest.param([b"chunked"], "1.1", 103, False, id="interim"),
        pytest.param([b"chunked", b"chunked"], "1.1", 200, False, id="twice"),
        pytest.param([b"gzip"], "1.1", 200, False, id="gzip"),
        pytest.param([b"gzip, chunked"], "1.1", 200, False, id="gzip in chunks"),
    ],
)
def test_a_body_comes_as_it_is(
    codings: list[bytes], version: str, status: int, *, plain: bool
) -> None:
    assert is_plain(codings, version=version, status=status) is plain

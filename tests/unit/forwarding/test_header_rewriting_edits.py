import pytest

from icr_proxy.forwarding.header_rewriting import EDITS_MOST, NAME_MOST, header_edits

Headers = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("received", "sent", "edits"),
    [
        pytest.param([], [], (), id="nothing"),
        pytest.param([(b"A", b"1")], [(b"a", b"1")], (), id="the case of a name is no edit"),
        pytest.param([(b"A", b"1")], [], ("-a",), id="gone"),
        pytest.param([], [(b"A", b"1")], ("+a",), id="come"),
        pytest.param([(b"A", b"1")], [(b"A", b"2")], ("~a",), id="changed"),
        pytest.param([(b"Content-Length", b"2")], [], (), id="how a body is framed is no edit"),
        pytest.param([(b"A", b"1"), (b"A", b"2")], [(b"A", b"1")], ("~a",), id="one of two gone"),
        pytest.param(
            [(b"Host", b"a"), (b"X-Tag", b"1"), (b"Accept", b"*")],
            [(b"Host", b"b"), (b"Accept", b"*"), (b"Via", b"v")],
            ("~host", "-x-tag", "+via"),
            id="in the order of the requests",
        ),
    ],
)
def test_edits_are_told_by_name(received: Headers, sent: Headers, edits: tuple[str, ...]) -> None:
    assert header_edits(received, sent) == edits


def test_no_value_is_told() -> None:
    edits = header_edits([(b"Authorization", b"planted")], [(b"Authorization", b"Bearer planted")])

    assert edits == ("~authorization",)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"x-crs_abc", "-… (masked)"),
        (b"x\x1b[2J", "-x\\x1b[2j"),
        (b"x" * 500, "-" + "x" * NAME_MOST),
    ],
    ids=["a credential for a name", "what a terminal obeys", "a long one"],
)
def test_a_name_is_made_harmless(name: bytes, told: str) -> None:
    assert header_edits([(name, b"1")], []) == (told,)


def test_there_are_only_so_many() -> None:
    received = [(b"x-%d" % number, b"") for number in range(EDITS_MOST * 2)]

    assert len(header_edits(received, [])) == EDITS_MOST

import pytest

from icr_proxy.observability.outcome import Trace, continue_trace

DIGITS = "00000001" + "1" * 24 + "2" * 16 + "3" * 16
NEW, SPAN, UPSTREAM = DIGITS[:32].encode(), "2" * 16, b"3" * 16

BEGUN = b"00-%b-%b-00" % (NEW, UPSTREAM)


def trace(value: bytes | None, *, share: float = 0.0) -> Trace:
    return continue_trace(value, digits=DIGITS, share=share)


A, B = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"


@pytest.mark.parametrize(
    ("sent", "result"),
    [
        pytest.param(b"00-%b-%b-01" % (A, B), b"00-%b-%b-01" % (A, UPSTREAM), id="continued"),
        pytest.param(b"00-%b-%b-00" % (A, B), b"00-%b-%b-00" % (A, UPSTREAM), id="not sampled"),
        pytest.param(None, BEGUN, id="none"),
        pytest.param(b"00-%b-%b-01" % (b"0" * 32, B), BEGUN, id="zero trace"),
        pytest.param(b"00-%b-%b-01" % (A, b"0" * 16), BEGUN, id="zero span"),
        pytest.param(b"00-%b-%b-01" % (A.upper(), B), BEGUN, id="upper case"),
        pytest.param(b"ff-%b-%b-01" % (A, B), BEGUN, id="forbidden version"),
        pytest.param(b"00-%b-%b-01-x" % (A, B), BEGUN, id="too much"),
        pytest.param(b"00-%b-%b-01\n" % (A, B), BEGUN, id="line break at the end"),
    ],
)
def test_a_trace_is_continued_or_begun(sent: bytes | None, result: bytes) -> None:
    assert trace(sent).traceparent == result


def test_the_callers_span_is_the_parent_of_ours() -> None:
    found = trace(b"00-%b-%b-01" % (A, B))

    assert (found.id, found.parent, found.span) == (A.decode(), B.decode(), SPAN)


@pytest.mark.parametrize(
    ("flags", "sampled"),
    [
        pytest.param(b"00", False, id="not sampled"),
        pytest.param(b"01", True, id="sampled"),
        pytest.param(b"03", True, id="sampled and random"),
        pytest.param(b"02", False, id="random only"),
    ],
)
def test_whether_a_callers_trace_is_sampled_is_the_callers_word(
    flags: bytes, *, sampled: bool
) -> None:
    assert trace(b"00-%b-%b-%b" % (A, B, flags), share=1.0).sampled is sampled


@pytest.mark.parametrize(
    ("share", "sampled"),
    [
        pytest.param(0.0, False, id="none"),
        pytest.param(1e-10, False, id="fewer than this one"),
        pytest.param(1e-9, True, id="this one too"),
        pytest.param(1.0, True, id="all"),
    ],
)
def test_a_share_of_the_traces_that_begin_here_is_sampled(share: float, *, sampled: bool) -> None:
    found = trace(None, share=share)

    assert found.sampled is sampled
    assert found.flags == ("01" if sampled else "00")

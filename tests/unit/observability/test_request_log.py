import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config.models import LogsConfig
from icr_proxy.http1.problem import INTERNAL, TABLE
from icr_proxy.observability.log import LineBuffer, Log, Threshold, build_log
from icr_proxy.observability.outcome import Outcome, Trace
from icr_proxy.observability.request_log import WORTH_A_LOOK, JsonBatch, RequestLog, Sampling
from tests.support import fakes
from tests.support.fakes import Heard
from tests.unit.observability.test_log import NOW, lines_of


def outcome(**changed: Any) -> Outcome:
    facts = {"bytes_out": 17, "started_at": NOW, "duration": 0.0123456}
    return fakes.outcome(**facts | changed)


def log_to(stream: io.BytesIO, *, level: str = "debug") -> tuple[LineBuffer, Log]:
    lines = LineBuffer(stream)
    return lines, build_log(
        LogsConfig(format="json"), lines=lines, threshold=Threshold(level), now=lambda: NOW
    )


def request_log_to(
    stream: io.BytesIO, *, level: str = "debug", sampling: Sampling | None = None
) -> tuple[LineBuffer, RequestLog]:
    """Give what writes lines for machines, many at a time."""
    lines, log = log_to(stream, level=level)
    return lines, RequestLog(log, batch=JsonBatch(lines, Threshold(level)), sampling=sampling)


def test_a_request_is_one_line_in_reading_order() -> None:
    heard = Heard()

    RequestLog(heard)(outcome())

    ((level, event, fields),) = heard.lines
    assert (level, event) == ("info", "request.done")
    assert list(fields.items()) == [
        ("method", "GET"),
        ("path", "/projects"),
        ("status", 200),
        ("operation", "projects.list"),
        ("caller", None),
        ("installation", "in-1"),
        ("origin", "upstream"),
        ("code", None),
        ("duration_ms", 12.346),
        ("first_byte_ms", 10.0),
        ("token_wait_ms", 1.0),
        ("bytes_in", 0),
        ("bytes_out", 17),
        ("attempts", 1),
        ("token", "0123456789ab"),
        ("token_generation", 1),
        ("would_refuse", None),
        ("duplicate_of", None),
        ("request_id", "request"),
        ("upstream_request_id", None),
        ("trace_id", "trace"),
        ("listener", "127.0.0.1:8080"),
        ("peer", "127.0.0.1"),
    ]


def test_a_request_that_never_reached_the_api_has_no_first_byte() -> None:
    heard = Heard()

    RequestLog(heard)(outcome(first_byte=None))

    assert heard.lines[0][2]["first_byte_ms"] is None


CALLERS_OWN = {
    "expectation-failed",
    "loop-detected",
    "bad-request",
    "body-too-large",
    "browser-refused",
    "caller-gone",
    "caller-unauthenticated",
    "draining",
    "endpoint-refused",
    "headers-too-large",
    "idempotency-key-reused",
    "installation-blocked",
    "installation-invalid",
    "installation-refused",
    "installation-required",
    "not-implemented",
    "policy-denied",
    "request-timeout",
    "uri-too-long",
    "webhook-refused",
    "wrong-host",
}


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (None, "info"),
        *((code, "info") for code in sorted(CALLERS_OWN)),
        *((code, "warning") for code in sorted(WORTH_A_LOOK)),
    ],
)
def test_what_went_wrong_on_our_way_is_a_warning(code: str | None, level: str) -> None:
    heard = Heard()

    RequestLog(heard)(outcome(code=code))

    assert heard.lines[0][0] == level


def test_every_code_is_somebodys() -> None:
    codes = {kind.code for kind in TABLE.values()} | {INTERNAL.code}

    assert codes == CALLERS_OWN | WORTH_A_LOOK


# -- sampling -------------------------------------------------------------------------------------


def traced(digits: str) -> Trace:
    return Trace(
        id=digits.rjust(32, "0"),
        parent=None,
        span="s",
        upstream_span="u",
        flags="00",
        sampled=False,
    )


@pytest.mark.parametrize(
    ("share", "digits", "logged"),
    [
        pytest.param(1.0, "ffffffff", 1, id="all"),
        pytest.param(0.5, "7fffffff", 1, id="half of them, this one"),
        pytest.param(0.5, "80000000", 0, id="half of them, not this one"),
        pytest.param(0.0, "00000000", 0, id="none"),
    ],
)
def test_a_share_of_the_reads_that_went_well_is_logged(
    share: float, digits: str, logged: int
) -> None:
    heard = Heard()

    RequestLog(heard, sampling=Sampling(share))(outcome(trace=traced(digits)))

    assert len(heard.lines) == logged


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"changes_state": True}, id="a write"),
        pytest.param({"status": 404}, id="an error of the API"),
        pytest.param({"code": "policy-denied", "status": 403}, id="a refusal"),
        pytest.param({"code": "caller-gone"}, id="an answer that broke off"),
        pytest.param({"would_refuse": "rule"}, id="what policy would refuse"),
    ],
)
def test_what_matters_is_logged_however_few_reads_are(facts: dict[str, object]) -> None:
    heard = Heard()

    RequestLog(heard, sampling=Sampling(0.0))(outcome(**facts))

    assert len(heard.lines) == 1


# -- for machines ---------------------------------------------------------------------------------


def test_a_line_for_machines_says_the_same_as_one_for_people() -> None:
    stream, heard = io.BytesIO(), Heard()

    lines, log = request_log_to(stream)
    log(outcome(code="mint-failed", first_byte=None))
    lines.flush()
    RequestLog(heard)(outcome(code="mint-failed", first_byte=None))

    ((level, event, fields),) = heard.lines
    (line,) = lines_of(stream)
    said = {"ts": "2023-11-14T22:13:20.137+00:00", "level": level, "event": event, **fields}
    assert list(line.items()) == list(said.items())


def test_below_the_level_no_line_is_made() -> None:
    stream = io.BytesIO()

    lines, log = request_log_to(stream, level="warning")
    log(outcome())
    lines.flush()

    assert stream.getvalue() == b""


def test_bytes_that_are_no_text_do_not_break_the_line() -> None:
    stream = io.BytesIO()

    lines, log = request_log_to(stream)
    log(outcome(peer="\udcff"))
    lines.flush()

    assert lines_of(stream)[0]["peer"] == "?"


def test_a_line_that_is_hard_to_encode_costs_no_other_its_place() -> None:
    stream = io.BytesIO()
    lines, log = request_log_to(stream)

    log.read_all([outcome(peer="1"), outcome(peer="\udcff"), outcome(peer="3")])
    lines.flush()

    assert [line["peer"] for line in lines_of(stream)] == ["1", "?", "3"]


def test_a_request_that_no_line_can_be_made_of_costs_no_other_its_line() -> None:
    stream = io.BytesIO()
    lines, log = request_log_to(stream)
    outcomes = iter([outcome(peer="1"), outcome(duration=None), outcome(peer="3")])
    read = log.read_all

    with pytest.raises(TypeError):
        read(outcomes)
    read(outcomes)
    lines.flush()

    assert [line["peer"] for line in lines_of(stream)] == ["1", "3"]


@pytest.mark.parametrize(
    ("level", "logged"),
    [("info", ["1", "2", "3"]), ("warning", ["2"]), ("error", [])],
)
def test_of_many_those_that_matter_enough_are_logged(level: str, logged: list[str]) -> None:
    stream = io.BytesIO()
    lines, log = request_log_to(stream, level=level)

    log.read_all([outcome(peer="1"), outcome(peer="2", code="mint-failed"), outcome(peer="3")])
    lines.flush()

    assert [line["peer"] for line in lines_of(stream)] == logged


def test_of_many_a_share_is_logged() -> None:
    stream = io.BytesIO()
    lines, log = request_log_to(stream, sampling=Sampling(0.5))
    every = [outcome(trace=traced(digits)) for digits in ("10000000", "90000000", "20000000")]

    log.read_all(every)
    lines.flush()

    assert [line["trace_id"][-8:] for line in lines_of(stream)] == ["10000000", "20000000"]


@given(seconds=st.floats(0, 4e9), duration=st.floats(0, 1e5))
def test_a_line_for_machines_has_the_bytes_of_any_other_line(
    seconds: float, duration: float
) -> None:
    """Whether it is written among many or alone: the same time, the same digits."""
    stream, plain, heard = io.BytesIO(), io.BytesIO(), Heard()
    lines, log = request_log_to(stream)
    one = outcome(started_at=seconds, duration=duration, path='/"\\', first_byte=duration)

    log.read_all([one])
    lines.flush()
    RequestLog(heard).read_all([one])

    ((_, event, fields),) = heard.lines
    build_log(
        LogsConfig(format="json"),
        lines=LineBuffer(plain),
        threshold=Threshold("info"),
        now=lambda: seconds + duration,
    ).info(event, **fields)
    assert stream.getvalue() == plain.getvalue()


class Counting(io.BytesIO):
    """Counts how often it is written to."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        return super().write(data)


def test_what_is_seen_off_together_is_written_as_one() -> None:
    stream = Counting()
    lines, log = request_log_to(stream)

    for _ in range(3):
        log(outcome())
    assert stream.writes == 0
    lines.flush()

    assert len(lines_of(stream)) == 3
    assert stream.writes == 1


def test_any_other_line_takes_those_before_it_along() -> None:
    stream = io.BytesIO()
    lines, log = log_to(stream)
    request_log = RequestLog(log, batch=JsonBatch(lines, Threshold("debug")))

    request_log(outcome())
    log.info("proxy.stopped")

    assert [line["event"] for line in lines_of(stream)] == ["request.done", "proxy.stopped"]

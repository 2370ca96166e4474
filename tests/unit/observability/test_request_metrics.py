"""What is counted in plain numbers shows as the library's own counters would show it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from icr_proxy.observability.metrics import LazyMetric, WithoutCreated
from icr_proxy.observability.outcome import Outcome, continue_trace
from icr_proxy.observability.request_metrics import (
    METHODS,
    SECONDS,
    STATUSES,
    InstallationCounts,
    InstallationMetrics,
    RequestCounts,
)
from tests.support.fakes import outcome

PLAIN, OPENMETRICS = "", "application/openmetrics-text;version=1.0.0"


def shown(registry: CollectorRegistry, accept: str) -> str:
    """Give the exposition, less the times of exemplars: the library looks at the clock."""
    encode, _ = choose_encoder(accept)
    return re.sub(r"(# \{.*\} \S+) \S+", r"\1", encode(WithoutCreated(registry)).decode())


class Counted:
    """The counts that are tested."""

    def __init__(self) -> None:
        self.counts = counts = RequestCounts()
        self.registry = CollectorRegistry()
        for make in (
            *(counts.requests, counts.durations, counts.first_bytes),
            *(counts.bytes, counts.refusals, counts.would_refuse, counts.callers),
        ):
            self.registry.register(LazyMetric(make))


class Reference:
    """The same by the library's own counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("operation", "method", "status", "origin")
        self.requests = self._counter("requests", "Requests answered.", *labels)
        self.duration = self._histogram(
            "request_duration_seconds", "From the head to the last byte."
        )
        self.first_byte = self._histogram(
            "upstream_first_byte_seconds", "The API's time to the head of its answer."
        )
        self.bytes = self._counter("bytes", "Bytes of bodies passed on.", "direction")
        for direction in ("in", "out"):
            self.bytes.labels(direction)
        self.refusals = self._counter(
            "refusals", "Requests refused or broken off, by code.", "code"
        )
        self.would_refuse = self._counter(
            "would_refuse", "Requests that policy would refuse, were it enforced."
        )
        self.callers = self._counter("caller_requests", "Requests of known callers.", "caller")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"icr_proxy_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(
            f"icr_proxy_{name}", meaning, ["operation"], registry=self.registry, buckets=SECONDS
        )

    def read(self, outcome: Outcome) -> None:
        method = outcome.method if outcome.method in METHODS else "other"
        status = str(outcome.status) if outcome.status in STATUSES else "other"
        self.requests.labels(outcome.operation, method, status, outcome.origin).inc()
        exemplar = {"trace_id": outcome.trace_id} if outcome.trace.sampled else None
        self.duration.labels(outcome.operation).observe(outcome.duration, exemplar)
        first_byte = self.first_byte.labels(outcome.operation)
        if outcome.first_byte is not None:
            first_byte.observe(outcome.first_byte, exemplar)
        self.bytes.labels("in").inc(outcome.bytes_in)
        self.bytes.labels("out").inc(outcome.bytes_out)
        if outcome.code is not None:
            self.refusals.labels(outcome.code).inc()
        if outcome.caller is not None:
            self.callers.labels(outcome.caller).inc()
        self.would_refuse.inc(outcome.would_refuse is not None)


durations = st.one_of(st.sampled_from([*SECONDS, 0.0, 61.0]), st.floats(0, 100))
facts = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["projects.list", "v1.retire", "unknown"]),
        "method": st.sampled_from(["GET", "POST", "PROPFIND", "other", ""]),
        "status": st.sampled_from([200, 404, 499, 0, 99, 600]),
        "origin": st.sampled_from(["upstream", "proxy"]),
        "code": st.sampled_from([None, "internal", "policy-denied"]),
        "caller": st.sampled_from([None, "reporting", 'odd "name"\n']),
        "would_refuse": st.sampled_from([None, "rule"]),
        "bytes_in": st.integers(0, 10**15),
        "bytes_out": st.integers(0, 10**6),
        "duration": durations,
        "first_byte": st.one_of(st.none(), durations),
        "trace": st.builds(
            lambda digits, sampled: continue_trace(None, digits=digits, share=sampled),
            digits=st.text("0123456789abcdef", min_size=64, max_size=64),
            sampled=st.sampled_from([0.0, 1.0]),
        ),
    }
)


@pytest.mark.parametrize("accept", [PLAIN, OPENMETRICS], ids=["plain", "openmetrics"])
@given(batches=st.lists(st.lists(facts, max_size=8), max_size=4))
def test_it_shows_as_the_librarys_own_counters_would(
    accept: str, batches: list[list[dict[str, Any]]]
) -> None:
    counted, reference = Counted(), Reference()

    for batch in batches:
        outcomes = [outcome(**facts) for facts in batch]
        counted.counts.read_all(outcomes)
        for each in outcomes:
            reference.read(each)

    assert shown(counted.registry, accept) == shown(reference.registry, accept)


def test_an_exemplar_is_of_the_time_at_which_the_request_ended() -> None:
    counted = Counted()
    sampled = continue_trace(None, digits="a" * 64, share=1.0)

    counted.counts.read_all([outcome(trace=sampled, started_at=1000.0, duration=0.25)])

    text = choose_encoder(OPENMETRICS)[0](counted.registry).decode()
    assert f'# {{trace_id="{"a" * 32}"}} 0.25 1000.25\n' in text


def test_a_tally_shows_as_a_counter_would() -> None:
    tally = InstallationCounts("x", "Meaning.", "result")
    registry, reference = CollectorRegistry(), CollectorRegistry()
    tally.numbers.update({"one": 2, "none": 0})
    registry.register(tally)
    counter = Counter("x", "Meaning.", ["result"], registry=reference)

    counter.labels("one").inc(2)
    counter.labels("none")

    assert shown(registry, PLAIN) == shown(reference, PLAIN)


def test_series_are_as_many_as_labels_differ() -> None:
    counted = Counted()

    for number in range(100):
        counted.counts.read_all([outcome(method=f"M{number}", status=900 + number)])

    assert len(counted.counts.requests().samples) == 1


class Stage:
    """Metrics for two installations, and the tokens there are."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tokens: list[tuple[str, float]] = []
        self.metrics = InstallationMetrics(
            self.registry, most=2, expiries=lambda: iter(self.tokens)
        )

    def requests(self) -> dict[str, float]:
        return dict(self._samples("icr_proxy_installation_requests_total"))

    def expiries(self) -> dict[str, float]:
        return dict(self._samples("icr_proxy_installation_token_expiry_timestamp_seconds"))

    def _samples(self, name: str) -> Iterator[tuple[str, float]]:
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels["installation"], sample.value


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_requests_are_counted_by_installation(stage: Stage) -> None:
    for installation in ("a", "b", "a"):
        stage.metrics(outcome(installation=installation))

    assert stage.requests() == {"a": 2, "b": 1}


def test_installations_beyond_the_bound_share_one_series(stage: Stage) -> None:
    for number in range(1000):
        stage.metrics(outcome(installation=f"in-{number}"))

    assert stage.requests() == {"in-0": 1, "in-1": 1, "other": 998}


def test_an_installation_that_somebody_only_names_takes_no_place(stage: Stage) -> None:
    """Whoever sends invented IDs could otherwise push the real ones into `other`."""
    stage.metrics(outcome(installation="invented", token=None))

    assert stage.requests() == {}


def test_a_request_without_installation_is_not_counted(stage: Stage) -> None:
    stage.metrics(outcome(installation=None))

    assert stage.requests() == {}


def test_the_expiry_of_each_token_is_shown(stage: Stage) -> None:
    stage.metrics(outcome(installation="a"))
    stage.tokens = [("a", 100.0)]

    assert stage.expiries() == {"a": 100.0}


def test_of_those_that_share_a_series_the_soonest_expiry_is_shown(stage: Stage) -> None:
    stage.metrics(outcome(installation="a"))
    stage.tokens = [("a", 100.0), ("x", 300.0), ("y", 200.0)]

    assert stage.expiries() == {"a": 100.0, "other": 200.0}


def test_an_installation_that_is_called_other_shares_that_series(stage: Stage) -> None:
    """Two series of the same name would make the whole scrape invalid."""
    for installation in ("other", "a", "x", "y"):
        stage.metrics(outcome(installation=installation))

    assert stage.requests() == {"other": 3, "a": 1}

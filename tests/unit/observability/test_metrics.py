import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from icr_proxy import __version__
from icr_proxy.observability.metrics import Metrics
from icr_proxy.observability.outcome import Trace
from icr_proxy.observability.request_metrics import METHODS
from tests.support.fakes import outcome


def families(metrics: Metrics) -> dict[str, Metric]:
    text = metrics.render()[0].decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(metrics: Metrics) -> Iterator[str]:
    for family in families(metrics).values():
        for sample in family.samples:
            yield sample.name


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"icr_proxy_{name}", labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_the_exposition_is_what_prometheus_parses(metrics: Metrics) -> None:
    metrics(outcome(code="upstream-broken", bytes_in=3, bytes_out=5, would_refuse="a rule"))
    metrics.states("things", "Things.", label="state", count=lambda: {"here": 1, "gone": 2})

    found = families(metrics)

    ours = {name for name in found if name.startswith("icr_proxy_")}
    assert {"icr_proxy_requests", "icr_proxy_things", "icr_proxy_build_info"} <= ours
    assert all(found[name].documentation for name in ours)


def test_there_are_no_series_about_when_a_series_was_made(metrics: Metrics) -> None:
    """`_created` doubles the number of series and nobody asks for them."""
    metrics(outcome())

    assert [name for name in samples(metrics) if name.endswith("_created")] == []


def test_two_proxies_in_one_process_count_apart(metrics: Metrics) -> None:
    other = Metrics()

    metrics(outcome())

    assert value(metrics, "upstream_first_byte_seconds_count", operation="projects.list") == 1
    assert value(other, "upstream_first_byte_seconds_count", operation="projects.list") is None


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    metrics(outcome(code="internal", bytes_out=1, would_refuse="a rule"))
    ours = [family for name, family in families(metrics).items() if name.startswith("icr_proxy_")]

    counters = [family for family in ours if family.type == "counter"]

    assert all(re.fullmatch(r"icr_proxy_[a-z_]+", family.name) for family in ours)
    assert all(sample.name.endswith("_total") for family in counters for sample in family.samples)


# -- what an outcome counts -----------------------------------------------------------------------


def test_a_request_is_counted_under_its_closed_labels(metrics: Metrics) -> None:
    for _ in range(3):
        metrics(outcome())

    labels = {
        "operation": "projects.list",
        "method": "GET",
        "status": "200",
        "origin": "upstream",
    }
    assert value(metrics, "requests_total", **labels) == 3


@pytest.mark.parametrize("method", sorted(METHODS))
def test_known_methods_have_a_label_of_their_own(metrics: Metrics, method: str) -> None:
    metrics(outcome(method=method))

    assert f'method="{method}"' in metrics.render()[0].decode()


@pytest.mark.parametrize("method", ["get", "PROPFIND", "-", "", 'X"} 1\n', "Ü" * 500])
def test_all_other_methods_share_one_label(metrics: Metrics, method: str) -> None:
    metrics(outcome(method=method))

    (sample,) = families(metrics)["icr_proxy_requests"].samples
    assert sample.labels["method"] == "other"


@pytest.mark.parametrize(
    ("status", "label"),
    [(200, "200"), (299, "299"), (499, "499"), (599, "599"), (600, "other"), (999, "other"),
     (0, "other"), (99, "other")],
)  # fmt: skip
def test_a_status_no_standard_knows_shares_one_label(
    metrics: Metrics, status: int, label: str
) -> None:
    metrics(outcome(status=status))

    (sample,) = families(metrics)["icr_proxy_requests"].samples
    assert sample.labels["status"] == label


def test_nothing_a_caller_can_choose_becomes_a_label(metrics: Metrics) -> None:
    chosen: dict[str, Any] = {
        "request_id": "planted-1",
        "trace": replace(SAMPLED, id="planted-2"),
        "peer": "planted-3",
        "path": "/planted-4",
        "method": "PLANTED",
        "installation": "planted-5",
    }

    metrics(outcome(**chosen, code="bad-request", would_refuse="planted rule"))

    assert b"planted" not in metrics.render()[0].lower()


def test_series_do_not_grow_with_callers(metrics: Metrics) -> None:
    metrics(outcome(method="PROPFIND", status=700))
    before = Counter(samples(metrics))

    for number in range(100):
        metrics(outcome(method=f"M{number}", path=f"/{number}", status=800 + number))

    assert Counter(samples(metrics)) == before


def test_times_are_observed(metrics: Metrics) -> None:
    metrics(outcome(duration=0.02, first_byte=0.01))

    sums = [
        value(metrics, f"{name}_sum", operation="projects.list")
        for name in ("request_duration_seconds", "upstream_first_byte_seconds")
    ]
    assert sums == [0.02, 0.01]


def test_a_request_that_never_reached_the_api_has_no_first_byte(metrics: Metrics) -> None:
    metrics(outcome(first_byte=None))

    assert value(metrics, "upstream_first_byte_seconds_count", operation="projects.list") == 0


def test_bytes_are_counted_both_ways(metrics: Metrics) -> None:
    metrics(outcome(bytes_in=3, bytes_out=5))
    metrics(outcome(bytes_in=0, bytes_out=5))

    assert value(metrics, "bytes_total", direction="in") == 3
    assert value(metrics, "bytes_total", direction="out") == 10


def test_codes_are_counted(metrics: Metrics) -> None:
    metrics(outcome(code="policy-denied"))
    metrics(outcome(code=None))

    assert value(metrics, "refusals_total", code="policy-denied") == 1


def test_what_policy_would_refuse_is_counted(metrics: Metrics) -> None:
    metrics(outcome(would_refuse="a rule"))
    metrics(outcome(would_refuse=None))

    assert value(metrics, "would_refuse_total") == 1


# -- what is counted when somebody asks -----------------------------------------------------------


def test_states_are_counted_at_each_scrape(metrics: Metrics) -> None:
    tokens = {"fresh": 1.0}
    metrics.states("tokens", "Tokens.", label="state", count=lambda: tokens)
    before = value(metrics, "tokens", state="fresh")

    tokens["fresh"] = 7

    assert (before, value(metrics, "tokens", state="fresh")) == (1, 7)


def test_no_states_are_no_samples(metrics: Metrics) -> None:
    metrics.states("tokens", "Tokens.", label="state", count=dict)

    assert families(metrics)["icr_proxy_tokens"].samples == []


def test_the_version_is_told(metrics: Metrics) -> None:
    (sample,) = families(metrics)["icr_proxy_build_info"].samples

    assert (sample.labels["version"], sample.value) == (__version__, 1)


def test_the_process_is_measured(metrics: Metrics) -> None:
    found = families(metrics)

    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= set(found)


SAMPLED = Trace(
    id="0af7651916cd43dd8448eb211c80319c",
    parent=None,
    span="s",
    upstream_span="u",
    flags="01",
    sampled=True,
)
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def test_openmetrics_show_the_trace_of_a_sampled_request(metrics: Metrics) -> None:
    metrics(outcome(trace=SAMPLED))

    text, content_type = metrics.render(OPENMETRICS)

    assert content_type.startswith(b"application/openmetrics-text")
    assert b'# {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.02' in text
    assert text.endswith(b"# EOF\n")


def test_a_trace_that_nobody_keeps_is_no_exemplar(metrics: Metrics) -> None:
    metrics(outcome())

    assert b"trace_id" not in metrics.render(OPENMETRICS)[0]


def test_who_asks_for_nothing_special_gets_plain_text_without_exemplars(metrics: Metrics) -> None:
    metrics(outcome(trace=SAMPLED))

    text, content_type = metrics.render()

    assert content_type.startswith(b"text/plain")
    assert b"trace_id" not in text

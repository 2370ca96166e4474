from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from icr_proxy.observability.request_metrics import InstallationMetrics
from tests.support.fakes import outcome


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

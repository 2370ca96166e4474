import pytest

from icr_proxy.errors import StartError
from icr_proxy.observability.metrics import Metrics
from icr_proxy.runtime.watchers import CircuitReports, PoolReports, TrustReports
from icr_proxy.upstream.circuit_breaker import Circuit
from tests.support.fakes import Heard


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"icr_proxy_{name}", labels)


def test_what_becomes_of_connections_is_counted(metrics: Metrics) -> None:
    pool = PoolReports(metrics=metrics)

    pool.connected("ok")
    pool.closed("dirty")
    pool.waited("busy")

    assert value(metrics, "upstream_connects_total", result="ok") == 1
    assert value(metrics, "upstream_connects_total", result="tls") == 0
    assert value(metrics, "upstream_closes_total", reason="dirty") == 1
    assert value(metrics, "upstream_closes_total", reason="idle") == 0
    assert value(metrics, "upstream_waits_total", result="busy") == 1


def test_every_change_of_the_circuit_is_counted_and_told(metrics: Metrics) -> None:
    heard = Heard()
    reports = CircuitReports(log=heard, metrics=metrics)
    circuit = Circuit(failures=1, pause=5.0, random=lambda: 0.0, moved=reports.moved)

    circuit.failed(circuit.admit(now=0.0, is_light=True), now=0.0)
    circuit.admit(now=5.0, is_light=True)
    circuit.answered()

    assert heard.lines == [
        ("warning", "circuit.opened", {"failures": 1, "pause_s": 5.0}),
        ("info", "circuit.half_open", {}),
        ("info", "circuit.closed", {}),
    ]
    for state in ("open", "half_open", "closed"):
        assert value(metrics, "circuit_transitions_total", to=state) == 1


def test_a_change_of_authorities_is_counted_and_told(metrics: Metrics) -> None:
    heard = Heard()
    reports = TrustReports(log=heard, metrics=metrics)

    reports.renewed()
    reports.rejected(StartError("upstream.ca_file: /ca.pem is empty"))

    assert heard.lines == [
        ("info", "upstream.ca_renewed", {}),
        ("error", "upstream.ca_rejected", {"detail": "upstream.ca_file: /ca.pem is empty"}),
    ]
    for result in ("ok", "rejected"):
        assert value(metrics, "upstream_ca_reloads_total", result=result) == 1

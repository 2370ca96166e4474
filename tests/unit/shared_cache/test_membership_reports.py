from icr_proxy.observability.metrics import Metrics
from icr_proxy.shared_cache.membership import SharingReports
from icr_proxy.shared_cache.single_flight import RESULTS
from tests.support.fakes import Heard


def test_going_and_coming_back_are_told() -> None:
    heard = Heard()
    reports = SharingReports(log=heard, metrics=Metrics())

    reports.lost("timeout", "TimeoutError")
    reports.back(1.23456)

    assert heard.lines == [
        ("warning", "shared.lost", {"reason": "timeout", "error": "TimeoutError"}),
        ("info", "shared.back", {"lost_s": 1.235}),
    ]


def test_every_result_is_counted_and_the_first_unreadable_entry_told() -> None:
    heard, metrics = Heard(), Metrics()
    reports = SharingReports(log=heard, metrics=metrics)

    for result in (*RESULTS, "unreadable"):
        reports.counted(result)

    name = "icr_proxy_shared_tokens_total"
    counted = [metrics.registry.get_sample_value(name, {"result": each}) for each in RESULTS]
    assert counted == [1, 1, 1, 2]
    assert [event for _, event, _ in heard.lines] == ["shared.unreadable"]

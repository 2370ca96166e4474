from dataclasses import replace

import pytest

from icr_proxy.credentials.access_token import AccessToken, CachedToken
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    KeyUnusableError,
    MintError,
    MintRationedError,
    MintTimeoutError,
    StartError,
)
from icr_proxy.identifiers import TokenKey
from icr_proxy.net.tls import TlsIdentity, new_context
from icr_proxy.observability.metrics import Metrics
from icr_proxy.redaction import Secret
from icr_proxy.runtime.watchers import (
    CircuitReports,
    ClockReports,
    FrontReports,
    KeyReports,
    PoolReports,
    TlsReports,
    TokenReports,
    TrustReports,
)
from icr_proxy.upstream.circuit_breaker import CircuitBreaker
from tests.support.fakes import Heard

ONE = TokenKey("in-1")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def tokens(heard: Heard, metrics: Metrics) -> TokenReports:
    return TokenReports(log=heard, metrics=metrics)


@pytest.fixture
def keys(heard: Heard, metrics: Metrics) -> KeyReports:
    return KeyReports(log=heard, metrics=metrics)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"icr_proxy_{name}", labels)


def cached() -> CachedToken:
    token = AccessToken(
        secret=Secret("crs_planted"),
        minted_at=1000.0,
        expires_at=8200.0,
        fingerprint="0123456789ab",
        organization="org-1",
        permissions={"organization_info": "VIEW"},
    )
    return CachedToken(
        token=token,
        generation=4,
        authorization=b"Bearer crs_planted",
        due_at=7900.0,
        dead_at=8198.0,
    )


@pytest.mark.parametrize("result", ["fresh", "due", "dead", "negative"])
def test_every_lookup_is_counted_and_none_is_logged(
    tokens: TokenReports, heard: Heard, metrics: Metrics, result: str
) -> None:
    tokens.looked_up(result)

    assert value(metrics, "token_lookups_total", result=result) == 1
    assert heard.lines == []


def test_a_minted_token_is_told_by_its_fingerprint(
    tokens: TokenReports, heard: Heard, metrics: Metrics
) -> None:
    tokens.minted(ONE, cached(), 0.25)

    assert heard.lines == [
        (
            "info",
            "token.minted",
            {
                "installation": "in-1",
                "organization": "org-1",
                "token": "0123456789ab",
                "generation": 4,
                "lifetime_s": 7200.0,
                "duration_ms": 250.0,
            },
        )
    ]
    assert "planted" not in str(heard.lines)
    assert value(metrics, "token_mints_total", kind="installation", result="ok") == 1
    assert value(metrics, "token_mint_duration_seconds_sum") == 0.25


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InstallationRefusedError("why"), ("installation-refused", "installation-refused")),
        (AppKeyRefusedError("why"), ("app-key-refused", "app-key-refused")),
        (MintError("why"), ("failed", "mint-failed")),
        (MintError("why", reason="tls"), ("tls", "upstream-tls")),
        (MintError("why", reason="unreachable"), ("unreachable", "upstream-unreachable")),
        (MintError("why", reason="broken"), ("broken", "upstream-broken")),
        (MintError("why", reason="status-5xx"), ("status-5xx", "mint-failed")),
        (MintTimeoutError("why"), ("timeout", "mint-timeout")),
        (MintError("why", reason="busy"), ("busy", "overloaded")),
        (MintError("why", reason="circuit-open"), ("circuit-open", "circuit-open")),
    ],
    ids=lambda value: getattr(value, "reason", value),
)
def test_a_failed_mint_is_told_by_its_reason(
    tokens: TokenReports, heard: Heard, metrics: Metrics, error: MintError, told: tuple[str, str]
) -> None:
    tokens.mint_failed(ONE, error, 0.5)

    assert heard.lines == [
        (
            "warning",
            "token.mint_failed",
            {
                "installation": "in-1",
                "reason": told[0],
                "code": told[1],
                "detail": "why",
                "retry_after_s": None,
                "duration_ms": 500.0,
            },
        )
    ]
    assert value(metrics, "token_mints_total", kind="installation", result=told[0]) == 1
    assert value(metrics, "token_mint_duration_seconds_count") == 0


def test_mints_of_the_apps_own_token_are_counted_apart(
    tokens: TokenReports, metrics: Metrics
) -> None:
    tokens.minted(TokenKey(None), cached(), 0.25)
    tokens.mint_failed(TokenKey(None), MintError("why"), 0.25)

    assert value(metrics, "token_mints_total", kind="app", result="ok") == 1
    assert value(metrics, "token_mints_total", kind="app", result="failed") == 1


def test_a_token_whose_end_is_unknown_is_told_once(tokens: TokenReports, heard: Heard) -> None:
    found = cached()
    found.token = replace(found.token, is_expiry_told=False)

    tokens.minted(ONE, found, 0.25)
    tokens.minted(TokenKey("in-2"), found, 0.25)

    assert [line for line in heard.lines if line[1] != "token.minted"] == [
        ("warning", "token.expiry_unknown", {"installation": "in-1", "lifetime_s": 7200.0})
    ]


def test_a_ration_used_up_is_counted_and_told_once(
    tokens: TokenReports, heard: Heard, metrics: Metrics
) -> None:
    for is_first in (True, False, False):
        tokens.mint_failed(ONE, MintRationedError("x", is_first=is_first), 0.0)

    assert heard.lines == [("warning", "token.mints_rationed", {"installation": "in-1"})]
    assert value(metrics, "token_mints_total", kind="installation", result="rationed") == 3


@pytest.mark.parametrize("result", ["dropped", "stale", "limited"])
def test_a_refused_token_is_counted_and_told(
    tokens: TokenReports, heard: Heard, metrics: Metrics, result: str
) -> None:
    tokens.refused(ONE, 4, result)

    assert heard.lines == [
        ("warning", "token.refused", {"installation": "in-1", "generation": 4, "result": result})
    ]
    assert value(metrics, "token_refusals_total", reason=result) == 1


def test_a_key_that_is_there_is_told(keys: KeyReports, heard: Heard) -> None:
    keys.loaded("SHA256:one")

    assert heard.lines == [("info", "key.loaded", {"fingerprint": "SHA256:one"})]


def test_every_key_is_shown_as_it_stands(keys: KeyReports, metrics: Metrics) -> None:
    keys.states_changed({"SHA256:new": "refused", "SHA256:one": "active", "SHA256:old": "standby"})

    for name, state in (("new", "refused"), ("one", "active"), ("old", "standby")):
        assert value(metrics, "signing_key_info", fingerprint=f"SHA256:{name}", state=state) == 1


def test_a_key_is_shown_once_and_no_more_when_it_has_gone(
    keys: KeyReports, metrics: Metrics
) -> None:
    keys.states_changed({"SHA256:one": "active", "SHA256:two": "standby"})
    keys.states_changed({"SHA256:two": "active"})

    assert value(metrics, "signing_key_info", fingerprint="SHA256:one", state="active") is None
    assert value(metrics, "signing_key_info", fingerprint="SHA256:two", state="standby") is None
    assert value(metrics, "signing_key_info", fingerprint="SHA256:two", state="active") == 1


def test_a_rejected_key_is_told_loudly_and_the_old_one_stays_shown(
    keys: KeyReports, heard: Heard, metrics: Metrics
) -> None:
    keys.states_changed({"SHA256:one": "active"})
    keys.rejected(KeyUnusableError("holds a certificate"))

    assert heard.lines[-1] == ("error", "key.rejected", {"detail": "holds a certificate"})
    assert value(metrics, "signing_key_info", fingerprint="SHA256:one", state="active") == 1


def test_a_change_of_keys_that_went_wrong_is_told_and_so_is_its_end(
    keys: KeyReports, heard: Heard
) -> None:
    keys.only_old_works(works="SHA256:old", newest="SHA256:new")
    keys.newest_works("SHA256:new")

    assert heard.lines == [
        ("warning", "key.only_old_works", {"fingerprint": "SHA256:old", "newest": "SHA256:new"}),
        ("info", "key.newest_works", {"fingerprint": "SHA256:new"}),
    ]


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        pytest.param([0.0, 30.0, -30.0], [], id="fine"),
        pytest.param([30.6], [("warning", "clock.skewed", 30.6)], id="ahead"),
        pytest.param([-120.04], [("warning", "clock.skewed", -120.0)], id="behind"),
        pytest.param([60.0, 61.0, -1200.0], [("warning", "clock.skewed", 60.0)], id="once"),
        pytest.param([31.0, 29.0, 31.0], [("warning", "clock.skewed", 31.0)], id="trembling"),
        pytest.param(
            [31.0, 0.0, 1.0, 45.0],
            [
                ("warning", "clock.skewed", 31.0),
                ("info", "clock.agrees", 0.0),
                ("warning", "clock.skewed", 45.0),
            ],
            id="fine in between",
        ),
    ],
)
def test_a_clock_that_is_off_is_told_once(
    heard: Heard, measured: list[float], told: list[tuple[str, str, float]]
) -> None:
    clock = ClockReports(log=heard)

    for skew in measured:
        clock.measured(skew)

    assert [(level, event, fields["seconds"]) for level, event, fields in heard.lines] == told


@pytest.mark.parametrize("renewed", [False, True])
def test_a_certificate_that_is_renewed_is_told(heard: Heard, *, renewed: bool) -> None:
    TlsReports(log=heard, listener="[::]:443", now=lambda: 15.0).certified(
        identity(10, 20), renewed=renewed
    )

    told = [("info", "tls.renewed", {"listener": "[::]:443"})]
    assert heard.lines == (told if renewed else [])


def test_a_certificate_that_nobody_will_believe_is_told(heard: Heard) -> None:
    TlsReports(log=heard, listener="[::]:443", now=lambda: 20.0).certified(
        identity(10, 20), renewed=False
    )

    [(level, event, fields)] = heard.lines
    assert (level, event) == ("warning", "tls.certificate_unusable")
    assert fields["detail"] == "the certificate has expired"


def test_a_certificate_that_cannot_be_used_is_told_loudly(heard: Heard) -> None:
    TlsReports(log=heard, listener="[::]:443", now=lambda: 0.0).rejected(StartError("is empty"))

    assert heard.lines == [
        ("error", "tls.rejected", {"listener": "[::]:443", "detail": "is empty"})
    ]


def identity(begins_at: float, expires_at: float) -> TlsIdentity:
    return TlsIdentity(context=new_context(), begins_at=begins_at, expires_at=expires_at)


def test_connections_without_a_proxy_header_are_counted_and_told_once_of_each_kind(
    heard: Heard, metrics: Metrics
) -> None:
    refused = FrontReports(log=heard, metrics=metrics, listener="[::]:443")
    for reason in ("untrusted", "invalid", "untrusted"):
        refused(reason, "192.0.2.7")

    assert [fields["reason"] for _, _, fields in heard.lines] == ["untrusted", "invalid"]
    assert value(metrics, "proxy_protocol_refusals_total", reason="untrusted") == 2


def test_a_token_that_another_replica_had_made_is_no_mint(
    tokens: TokenReports, heard: Heard, metrics: Metrics
) -> None:
    token = AccessToken(
        secret=Secret("crs_1"), minted_at=0, expires_at=60, fingerprint="f", is_shared=True
    )
    cached = CachedToken(token=token, generation=3, authorization=b"", due_at=50, dead_at=59)

    tokens.minted(ONE, cached, 0.5)

    [(level, event, fields)] = heard.lines
    assert (level, event) == ("info", "token.found")
    assert fields["duration_ms"] == 500.0
    assert metrics.registry.get_sample_value("icr_proxy_token_mint_duration_seconds_count") == 0


@pytest.fixture
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
    circuit = CircuitBreaker(failures=1, pause=5.0, random=lambda: 0.0, moved=reports.moved)

    circuit.failed(circuit.allow_request(now=0.0, is_light=True), now=0.0)
    circuit.allow_request(now=5.0, is_light=True)
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

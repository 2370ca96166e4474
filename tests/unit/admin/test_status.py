import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from icr_proxy import __version__
from icr_proxy.admin.status import TOKENS_SHOWN
from icr_proxy.audit.segments import list_segments
from icr_proxy.config.inbound_models import PolicyConfig, RuleConfig
from icr_proxy.config.models import AuditConfig, CircuitConfig
from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.emulator.server import Emulator
from icr_proxy.identifiers import TokenKey
from icr_proxy.redaction import Secret
from tests.support.app_fixture import RunningProxy, app_key_pem, call, proxy_before, request_head
from tests.support.audit_fixture import records_in


def status_of(proxy: RunningProxy, *, after: float = 0.0) -> dict[str, Any]:
    """Describe the proxy as the admin port does, so many seconds from now."""
    app = proxy.app
    now = app.credentials.tokens._now() + after
    app._now, app._started_at = (lambda: now), now - 12.3456
    parsed: dict[str, Any] = json.loads(msgspec.json.encode(app._status()))
    return parsed


def installation(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


async def use(proxy: RunningProxy, installation: str) -> None:
    answer = await call(proxy.port, request_head(tag=installation))
    assert answer.status == 200


async def test_a_new_proxy_describes_itself(proxy: RunningProxy, emulator: Emulator) -> None:
    status = status_of(proxy)

    expected = {
        "version": __version__,
        "state": "ready",
        "uptime": 12.346,
        "app": emulator.app_id,
        "upstream": emulator.base_url,
        "api_version": "2023-06-16",
        "listeners": [proxy.app.address],
        "audit": None,
        "key": proxy.app.credentials.keys.fingerprint,
        "keys": {proxy.app.credentials.keys.fingerprint: "active"},
        "circuit": "closed",
        "degraded": [],
        "in_flight": 0,
        "mints_under_way": 0,
        "blocked": [],
        "tokens": [],
    }
    assert {name: status[name] for name in expected} == expected
    assert status["policy"]["read_only"] is False


async def test_how_the_audit_trail_stands_is_shown(emulator: Emulator, tmp_path: Path) -> None:
    audit = AuditConfig(directory=tmp_path)
    async with proxy_before(emulator, audit=audit) as proxy:
        status = status_of(proxy)["audit"]

    newest = records_in(tmp_path)[2]  # after it are those of the end
    assert status == {
        "writable": True,
        "error": None,
        "file": list_segments(tmp_path)[0].name,
        "seq": newest["seq"],
        "hash": newest["hash"][:12],
        "unrecorded": 0,
        "queue": 0,
    }


async def test_tokens_are_shown_by_their_fingerprints(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    await use(proxy, installation(emulator))

    (token,) = status_of(proxy)["tokens"]

    assert token["kind"] == "installation"
    assert token["installation"] == installation(emulator)
    assert token["state"] == "fresh"
    assert 7190 < token["expires_in"] <= 7200
    assert len(token["fingerprint"]) == 12
    assert token["permissions"]["organization_info"] == "VIEW"


@pytest.mark.parametrize(
    ("after", "state"), [(0.0, "fresh"), (7100.0, "due"), (7300.0, "dead")], ids=str
)
async def test_the_state_of_a_token_is_that_of_now(
    proxy: RunningProxy, emulator: Emulator, after: float, state: str
) -> None:
    await use(proxy, installation(emulator))

    (token,) = status_of(proxy, after=after)["tokens"]

    assert token["state"] == state


async def test_no_secret_is_shown(proxy: RunningProxy, emulator: Emulator) -> None:
    await use(proxy, installation(emulator))

    text = json.dumps(status_of(proxy))

    assert emulator.world.tokens
    assert not any(token in text for token in emulator.world.tokens)
    assert "crs_" not in text
    assert not any(line in text for line in app_key_pem().splitlines())


async def test_connections_are_counted(proxy: RunningProxy, emulator: Emulator) -> None:
    await use(proxy, installation(emulator))

    connections = status_of(proxy)["connections"]

    assert connections["upstream_idle"] == 1
    assert connections["upstream_active"] == 0


async def test_an_open_circuit_is_told_as_degraded(proxy: RunningProxy) -> None:
    circuit = proxy.app.outbound.circuit
    assert circuit is not None
    for _ in range(proxy.app.config.upstream.circuit.failures):
        circuit.failed(circuit.allow_request(now=0, is_light=True), now=0)

    status = status_of(proxy)

    assert (status["circuit"], status["degraded"]) == ("open", ["circuit-open"])


async def test_a_circuit_that_is_off_is_told_as_such(emulator: Emulator) -> None:
    off = {"circuit": CircuitConfig(failures=0)}
    async with proxy_before(emulator, upstream=off) as proxy:
        status = status_of(proxy)

    assert (status["circuit"], status["degraded"]) == ("off", [])


async def test_the_blocked_are_listed(proxy: RunningProxy) -> None:
    for identity in ("in-2", "in-1"):
        proxy.app.credentials.tokens.block(TokenKey(identity))

    assert status_of(proxy)["blocked"] == ["in-1", "in-2"]
    assert proxy.metric("blocked_installations") == 2


async def test_the_policy_is_told_with_what_it_would_refuse(emulator: Emulator) -> None:
    rule = RuleConfig(name="no-reads", action="deny", operations=("projects.list",))
    policy = PolicyConfig(mode="report", rules=(rule,))
    async with proxy_before(emulator, policy=policy) as proxy:
        await use(proxy, installation(emulator))

        told = status_of(proxy)["policy"]

    assert (told["mode"], told["default"]) == ("report", "allow")
    assert told["rules"][0]["operations"] == ["projects.list"]
    assert told["would_refuse"] == {"no-reads": 1}


async def test_the_page_has_a_bound(proxy: RunningProxy) -> None:
    tokens = proxy.app.credentials.tokens
    for number in range(TOKENS_SHOWN + 5):
        tokens._store(TokenKey(f"in-{number}"), token())

    shown = status_of(proxy)["tokens"]

    assert len(shown) == TOKENS_SHOWN
    assert shown[-1]["installation"] == f"in-{TOKENS_SHOWN + 4}"


def token() -> AccessToken:
    return AccessToken(
        secret=Secret("crs_x"), minted_at=0.0, expires_at=7200.0, fingerprint="0123456789ab"
    )

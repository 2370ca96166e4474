"""Switches and webhooks of a running proxy, in front of the emulator."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.config.models import WebhooksConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.errors import BindError, StartError
from icr_proxy.redaction import Secret
from icr_proxy.runtime.app import App
from tests.support.app_fixture import (
    RawAnswer,
    RunningProxy,
    Visit,
    call,
    config_for,
    ok,
    proxy_before,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.certificate_authority import authority, issue, server_certificate, trusting
from tests.unit.admin.test_webhooks_delivery import SECRET, about, delivery

if TYPE_CHECKING:
    from pathlib import Path

WEBHOOKS = WebhooksConfig(bind="127.0.0.1:0", path="/hooks", secret=Secret(SECRET))


def first(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


async def use(proxy: RunningProxy, installation: str) -> RawAnswer:
    return await call(proxy.port, request_head(tag=installation))


async def post(proxy: RunningProxy, path: str) -> RawAnswer:
    port = int(proxy.app.admin.address.rpartition(":")[2])
    return await call(port, request_head("POST", path, tag=None))


async def deliver(proxy: RunningProxy, content: object, *, secret: str = SECRET) -> RawAnswer:
    assert proxy.app.webhooks is not None
    port = int(proxy.app.webhooks.address.rpartition(":")[2])
    return await call(port, delivery(content, secret=secret))


def mints(proxy: RunningProxy) -> float:
    return proxy.metric("token_mints_total", kind="installation", result="ok")


# -- switches -------------------------------------------------------------------------------------


async def test_a_dropped_token_is_made_anew(proxy: RunningProxy, emulator: Emulator) -> None:
    installation = first(emulator)
    await use(proxy, installation)

    answers = [await post(proxy, f"/tokens/{installation}/drop") for _ in range(2)]
    await use(proxy, installation)

    assert [json.loads(answer.body)["dropped"] for answer in answers] == [True, False]
    assert mints(proxy) == 2
    assert [line["dropped"] for line in proxy.log("admin.token_dropped")] == [True, False]
    assert proxy.log("admin.token_dropped")[0]["peer"] == "127.0.0.1"


async def test_a_blocked_installation_is_refused_until_it_is_unblocked(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    installation = first(emulator)
    await use(proxy, installation)

    await post(proxy, f"/installations/{installation}/block")
    refused = await use(proxy, installation)
    blocked = proxy.metric("blocked_installations")
    await post(proxy, f"/installations/{installation}/unblock")
    served = await use(proxy, installation)

    assert refused.status == 403
    assert refused.problem["code"] == "installation-blocked"
    assert (blocked, proxy.metric("blocked_installations")) == (1, 0)
    assert served.status == 200
    assert proxy.metric("token_lookups_total", result="blocked") == 1


async def test_a_request_that_is_under_way_finishes_when_its_installation_is_blocked(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    installation = first(emulator)
    slow = request_head(target="/_emulator/slow?seconds=0.3", tag=installation)
    under_way = asyncio.ensure_future(call(proxy.port, slow))
    while not any("slow" in seen.target for seen in emulator.world.requests):  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    await post(proxy, f"/installations/{installation}/block")

    assert (await under_way).status == 200
    assert (await use(proxy, installation)).status == 403


async def test_a_block_is_about_one_installation(proxy: RunningProxy, emulator: Emulator) -> None:
    one, other = list(emulator.world.installations)[:2]

    await post(proxy, f"/installations/{one}/block")

    assert (await use(proxy, other)).status == 200


async def test_a_crash_of_the_status_is_logged_without_its_text(
    proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.app, "_started_at", "crs_planted")  # no number to subtract
    port = int(proxy.app.admin.address.rpartition(":")[2])

    answer = await call(port, request_head(target="/status", tag=None))

    assert answer.status == 500
    (line,) = proxy.log("admin.crashed")
    assert (line["path"], line["error"]) == ("/status", "TypeError")
    assert line["where"]
    assert "planted" not in json.dumps(line)


async def test_the_api_s_own_name_is_no_name_of_the_admin_port(
    proxy: RunningProxy,
) -> None:
    """Tools that know only `HTTP_PROXY` use it on the callers' port."""
    port = int(proxy.app.admin.address.rpartition(":")[2])

    answer = await call(port, b"GET /status HTTP/1.1\r\nHost: api.carbonregistry.com\r\n\r\n")

    assert answer.status == 421


# -- webhooks -------------------------------------------------------------------------------------


async def test_webhooks_are_off_by_default(proxy: RunningProxy) -> None:
    assert proxy.app.webhooks is None
    assert proxy.log("proxy.ready")[0]["webhooks"] is None


async def test_a_suspended_installation_is_refused_after_its_webhook(emulator: Emulator) -> None:
    """The emulator kills no token of a suspended installation; what the API does is not known."""
    installation = first(emulator)
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        await use(proxy, installation)
        emulator.world.suspend(installation)

        answer = await deliver(proxy, about("suspended", installation))
        refused = await use(proxy, installation)

        assert answer.status == 202
        assert refused.problem["code"] == "installation-refused"
        assert proxy.metric("webhooks_total", result="dropped") == 1


async def test_an_unsuspended_installation_is_served_at_once(emulator: Emulator) -> None:
    installation = first(emulator)
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        emulator.world.suspend(installation)
        refused = await use(proxy, installation)
        emulator.world.unsuspend(installation)

        await deliver(proxy, about("unsuspended", installation))
        served = await use(proxy, installation)

    assert refused.problem["code"] == "installation-refused"
    assert served.status == 200


async def test_new_permissions_take_effect_with_the_next_request(emulator: Emulator) -> None:
    installation = first(emulator)
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        await use(proxy, installation)
        emulator.world.set_permissions(installation, {"organization_info": "VIEW"})

        await deliver(proxy, about("newPermissionsAccepted", installation))
        await use(proxy, installation)

        ((_, cached),) = proxy.app.credentials.tokens
        assert cached.token.permissions == {"organization_info": "VIEW"}


async def test_a_forged_webhook_drops_nothing(emulator: Emulator) -> None:
    installation = first(emulator)
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        await use(proxy, installation)

        answer = await deliver(proxy, about("uninstalled", installation), secret="guessed")
        await use(proxy, installation)

        assert answer.problem["code"] == "webhook-refused"
        assert mints(proxy) == 1
        assert proxy.metric("webhooks_total", result="refused") == 1
        assert proxy.log("webhook.refused")[0]["code"] == "webhook-refused"


async def test_the_results_are_there_before_anything_happened(emulator: Emulator) -> None:
    """A rate of a series that is not there yet is no rate."""
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        text = proxy.app.observers.metrics.render()[0].decode()

    for result in ("dropped", "noted", "refused"):
        assert f'icr_proxy_webhooks_total{{result="{result}"}} 0.0' in text


async def test_a_secret_may_be_in_a_file_and_change(emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old\n")
    webhooks = WebhooksConfig(bind="127.0.0.1:0", secret_file=file)
    async with proxy_before(emulator, webhooks=webhooks) as proxy:
        assert proxy.app.webhooks is not None
        port = int(proxy.app.webhooks.address.rpartition(":")[2])

        async def status(secret: str) -> int:
            request = delivery(about("installed"), secret=secret)
            return (await call(port, request.replace(b"/hooks", b"/webhooks"))).status

        before = await status("old")
        file.write_text("brand new\n")
        after = [await status("old"), await status("brand new")]
        file.write_text("")
        still = await status("brand new")

        assert (before, after, still) == (202, [401, 202], 202)
        assert "is empty" in proxy.log("webhook.secret_rejected")[0]["detail"]


async def test_a_secret_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    webhooks = WebhooksConfig(bind="127.0.0.1:0", secret_file=tmp_path / "nothing")

    with pytest.raises(StartError, match=r"webhooks\.secret_file"):
        App(config_for("http://127.0.0.1:9", webhooks=webhooks), stream=io.BytesIO())


async def test_an_address_that_is_taken_is_told(emulator: Emulator) -> None:
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        assert proxy.app.webhooks is not None
        taken = WebhooksConfig(bind=proxy.app.webhooks.address, secret=Secret(SECRET))
        app = App(config_for("http://127.0.0.1:9", webhooks=taken), stream=io.BytesIO())

        with pytest.raises(BindError):
            await app.start()


async def test_the_secret_is_in_no_log_and_no_status(emulator: Emulator) -> None:
    async with proxy_before(emulator, webhooks=WEBHOOKS) as proxy:
        await deliver(proxy, about("suspended"))
        port = int(proxy.app.admin.address.rpartition(":")[2])
        status = await call(port, request_head(target="/status", tag=None))

        assert SECRET not in json.dumps(proxy.log())
        assert SECRET.encode() not in status.body


NOWHERE = "http://127.0.0.1:9"


async def test_tls_of_a_listener_is_told_by_log_and_metric(tmp_path: Path) -> None:
    issued, renewed = server_certificate(days=(-2, -1)), server_certificate(days=(-1, 7))
    cert, key = issued.write(tmp_path)
    listener = {"tls": TlsConfig(cert=cert, key=key)}
    async with running(config_for(NOWHERE, listener=listener)) as proxy:
        name = "listener_certificate_expiry_timestamp_seconds"
        before = proxy.metric(name, listener="127.0.0.1:0")
        renewed.write(tmp_path)
        after = proxy.metric(name, listener="127.0.0.1:0")

    assert before == issued.certificate.not_valid_after_utc.timestamp()
    assert after == renewed.certificate.not_valid_after_utc.timestamp()
    [line] = proxy.log("tls.certificate_unusable")
    assert line["detail"] == "the certificate has expired"
    assert len(proxy.log("tls.renewed")) == 1


async def test_a_request_over_tls_reaches_the_api(tmp_path: Path) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"[]"))

    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority("clients").cert_pem)
    cert, key = server_certificate().write(tmp_path)
    tls = TlsConfig(cert=cert, key=key, client_ca=ca)
    client = issue("ledger", by=authority("clients"))
    context = trusting(authority(), as_client=client, folder=tmp_path)
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, listener={"tls": tls})) as proxy,
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", proxy.port, ssl=context, server_hostname="localhost"
        )
        writer.write(request_head())
        answer = await read_answer(reader)
        writer.transport.abort()

    assert (answer.status, answer.body) == (200, b"[]")
    assert proxy.log("request.done")[0]["peer"] == "127.0.0.1"


def test_files_that_cannot_be_used_are_an_error_at_start(tmp_path: Path) -> None:
    cert, key = server_certificate().write(tmp_path)
    key.write_bytes(b"")
    config = config_for(NOWHERE, listener={"tls": TlsConfig(cert=cert, key=key)})

    with pytest.raises(StartError, match=r"^listeners\[0\].tls.key: "):
        App(config, stream=io.BytesIO())

"""A gateway that knows its callers: by key, on every listener, before anything else is asked."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from icr_proxy.config.inbound_models import (
    BrowserConfig,
    CallerConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
    TlsConfig,
)
from icr_proxy.config.models import Config, WebhooksConfig
from icr_proxy.policy.caller_auth import hash_of, new_key
from icr_proxy.redaction import Secret
from tests.support.app_fixture import (
    TAG,
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.certificate_authority import authority, issue, server_certificate, trusting
from tests.support.program import program_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RawAnswer

KEY, OLD_KEY, OTHER_KEY = new_key(), new_key(), new_key()
REPORTING = CallerConfig(name="reporting", keys=(hash_of(KEY), hash_of(OLD_KEY)))
TRADING = CallerConfig(name="trading", keys=(hash_of(OTHER_KEY),))
BEARER = f"Authorization: Bearer {KEY}\r\n"
PAGE = "https://app.example"


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok(b"done"))


@asynccontextmanager
async def gateway(**sections: Any) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    config = {"callers": (REPORTING, TRADING)} | sections
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, **config)) as proxy,
    ):
        yield proxy, api


def basic(user: str, key: str) -> str:
    return "Basic " + b64encode(f"{user}:{key}".encode()).decode()


# -- a key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credential",
    [
        pytest.param(BEARER, id="bearer"),
        pytest.param(f"Authorization: Bearer {OLD_KEY}\r\n", id="while keys are replaced"),
        pytest.param(f"Proxy-Authorization: Bearer {KEY}\r\n", id="to a proxy"),
        pytest.param(f"Authorization: {basic('reporting', KEY)}\r\n", id="user part of the URL"),
        pytest.param(
            f"Authorization: Bearer crs_the_tools_own\r\nProxy-Authorization: {basic('', KEY)}\r\n",
            id="beside the tool's own",
        ),
    ],
)
async def test_a_caller_with_a_key_is_served_and_the_api_never_sees_it(credential: str) -> None:
    async with gateway() as (proxy, api):
        answer = await call(proxy.port, request_head(extra=credential))

        assert answer.status == 200
        [line] = proxy.log("request.done")
        assert line["caller"] == "reporting"
        assert proxy.metric("caller_requests_total", caller="reporting") == 1
        assert b"icrp_" not in api.heads[0]
        assert b"proxy-authorization" not in api.heads[0].lower()
        assert api.heads[0].count(b"uthorization: Bearer crs_0") == 1
        assert KEY.encode() not in proxy.stream.getvalue()


@pytest.mark.parametrize(
    "credential",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"Authorization: Bearer {new_key()}\r\n", id="a stranger's key"),
        pytest.param(f"Authorization: Bearer {hash_of(KEY)}\r\n", id="what is in the file"),
        pytest.param("Authorization: Digest x\r\n", id="another scheme"),
    ],
)
async def test_whoever_is_not_known_reaches_nothing_and_hears_nothing(credential: str) -> None:
    async with gateway() as (proxy, api):
        answer = await call(proxy.port, request_head(extra=credential))

        assert answer.status == 401
        assert answer.problem["code"] == "caller-unauthenticated"
        assert answer.values(b"WWW-Authenticate") == [b'Bearer realm="icr-proxy"']
        assert answer.problem["message"].startswith("This proxy serves only callers it knows;")
        assert api.visits == 0
        assert proxy.log("request.done")[0]["caller"] is None
        assert proxy.log("caller.refused")[0]["peer"] == "127.0.0.1"


@pytest.mark.parametrize("target", ["/app/installations", "/organizations/o/inventory", "/~x/y"])
async def test_a_stranger_learns_nothing_about_what_there_is(target: str) -> None:
    async with gateway() as (proxy, _):
        answer = await call(proxy.port, request_head(target=target, tag=None))

    assert answer.problem["code"] == "caller-unauthenticated"


async def test_without_callers_nobody_is_asked() -> None:
    async with gateway(callers=()) as (proxy, _):
        answer = await call(proxy.port, request_head())

        assert answer.status == 200
        assert proxy.log("request.done")[0]["caller"] is None


async def test_a_listener_may_be_anonymous() -> None:
    async with gateway(listener={"anonymous": True}) as (proxy, _):
        assert (await call(proxy.port, request_head())).status == 200


async def test_with_a_key_the_user_of_the_url_is_still_the_installation() -> None:
    async with gateway(listener={"tags": ("userinfo",)}) as (proxy, _):
        given = f"Authorization: {basic('in-7', KEY)}\r\n"
        answer = await call(proxy.port, request_head(tag=None, extra=given))

        assert answer.status == 200
        [line] = proxy.log("request.done")
        assert (line["caller"], line["installation"]) == ("reporting", "in-7")


async def test_a_key_without_a_user_is_no_tag() -> None:
    listener = {"tags": ("userinfo",), "installation": "in-9"}
    async with gateway(listener=listener) as (proxy, _):
        given = f"Authorization: {basic('', KEY)}\r\n"
        await call(proxy.port, request_head(tag=None, extra=given))

        assert proxy.log("request.done")[0]["installation"] == "in-9"


# -- a certificate --------------------------------------------------------------------------------

JUNK = "Authorization: Bearer x\r\n"
LEDGER = CallerConfig(name="ledger", certificates=("uri:spiffe://corp/ledger",))


@pytest.mark.parametrize(
    ("spiffe", "extra", "status", "caller"),
    [
        pytest.param("spiffe://corp/ledger", "", 200, "ledger", id="known"),
        pytest.param("spiffe://corp/ledger", JUNK, 200, "ledger", id="the tool's own"),
        pytest.param("spiffe://corp/ledger", BEARER, 401, None, id="and a key of another caller"),
        pytest.param("spiffe://corp/other", "", 401, None, id="a stranger's"),
        pytest.param("spiffe://corp/other", BEARER, 200, "reporting", id="a stranger's, and a key"),
        pytest.param(None, "", 401, None, id="none"),
        pytest.param(None, BEARER, 200, "reporting", id="none, but a key"),
    ],
)
async def test_a_verified_certificate_says_who_calls(
    tmp_path: Path, spiffe: str | None, extra: str, status: int, caller: str | None
) -> None:
    cert, key = server_certificate().write(tmp_path)
    clients = tmp_path / "clients.crt"
    clients.write_bytes(authority("clients").cert_pem)
    tls = TlsConfig(cert=cert, key=key, client_ca=clients, client_auth="optional")
    names = (x509.UniformResourceIdentifier(spiffe),) if spiffe else ()
    own = issue("ledger", by=authority("clients"), names=names) if spiffe else None
    trust = trusting(authority(), as_client=own, folder=tmp_path)
    callers = (REPORTING, LEDGER)
    async with gateway(callers=callers, listener={"tls": tls}) as (proxy, _):
        reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=trust)
        for _ in range(2):
            writer.write(request_head(extra=extra))
            answer = await read_answer(reader)
        writer.close()

        assert answer.status == status
        assert [line["caller"] for line in proxy.log("request.done")] == [caller] * 2


# -- what is his to ask for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "method", "target"),
    [
        pytest.param({"installations": ("in-2",)}, "GET", "/projects", id="installation"),
        pytest.param({"operations": ("v1.retire",)}, "GET", "/projects", id="operation"),
        pytest.param({"listeners": ("127.0.0.1:1",)}, "GET", "/projects", id="listener"),
        pytest.param({"operations": ("*.list",)}, "GET", "/no/such/thing", id="unknown operation"),
    ],
)
async def test_what_is_not_his_is_denied(limits: dict[str, Any], method: str, target: str) -> None:
    async with gateway(callers=(replace(REPORTING, **limits),)) as (proxy, api):
        answer = await call(proxy.port, request_head(method, target, extra=BEARER))

        assert answer.status == 403
        assert answer.problem["code"] == "policy-denied"
        assert "The caller reporting may not" in answer.problem["message"]
        assert api.visits == 0
        assert proxy.log("request.done")[0]["caller"] == "reporting"


async def test_a_caller_of_one_installation_does_not_get_the_apps_own_token() -> None:
    callers = (replace(REPORTING, installations=("in-1",)),)
    async with gateway(callers=callers, listener={"untagged": "app"}) as (proxy, api):
        answer = await call(proxy.port, request_head(tag=None, extra=BEARER))

    assert answer.problem["code"] == "policy-denied"
    assert api.visits == 0


async def test_a_rule_may_be_about_a_caller() -> None:
    rule = RuleConfig(name="no-reports", action="deny", callers=("reporting",))
    async with gateway(policy=PolicyConfig(rules=(rule,))) as (proxy, _):
        one = await call(proxy.port, request_head(extra=BEARER))
        other = await call(proxy.port, request_head(extra=f"Authorization: Bearer {OTHER_KEY}\r\n"))

    assert one.problem["code"] == "policy-denied"
    assert other.status == 200


# -- many failures --------------------------------------------------------------------------------


async def test_failures_are_slowed_and_a_right_key_is_not() -> None:
    async with gateway() as (proxy, _):
        for _ in range(2):
            await call(proxy.port, request_head())
        async with asyncio.TaskGroup() as group:
            late = [group.create_task(call(proxy.port, request_head())) for _ in range(7)]
            while proxy.metric("caller_failures_total", reason="missing") < 9:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)

            right = await call(proxy.port, request_head(extra=BEARER))

            assert right.status == 200
            assert not all(task.done() for task in late)
            for task in late:
                task.cancel()


async def test_whoever_waits_for_a_refusal_takes_no_place_from_others() -> None:
    async with gateway(limits=LimitsConfig(in_flight=1)) as (proxy, _):
        for _ in range(6):
            await call(proxy.port, request_head())
        waiting = asyncio.ensure_future(call(proxy.port, request_head()))
        while proxy.metric("caller_failures_total", reason="missing") < 7:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)

        assert (await call(proxy.port, request_head(extra=BEARER))).status == 200
        assert not waiting.done()
        waiting.cancel()


# -- reload ---------------------------------------------------------------------------------------


def with_callers(config: Config, *callers: CallerConfig) -> Config:
    return replace(config, callers=callers)


async def test_a_key_is_withdrawn_without_a_restart() -> None:
    async with gateway() as (proxy, _):
        config = proxy.app.config
        only_new = replace(REPORTING, keys=(hash_of(KEY),))
        proxy.app.reload(lambda: with_callers(config, only_new))

        new = await call(proxy.port, request_head(extra=BEARER))
        old = await call(proxy.port, request_head(extra=f"Authorization: Bearer {OLD_KEY}\r\n"))

        assert (new.status, old.status) == (200, 401)
        assert proxy.log("config.reloaded")[0]["restart_needed_for"] == []


async def test_when_the_last_caller_goes_nobody_comes_in() -> None:
    async with gateway() as (proxy, _):
        config = proxy.app.config
        for _ in range(2):
            proxy.app.reload(lambda: with_callers(config))

        stranger = await call(proxy.port, request_head())
        withdrawn = await call(proxy.port, request_head(extra=BEARER))

        assert (stranger.status, withdrawn.status) == (401, 401)
        assert proxy.log("config.reloaded")[0]["restart_needed_for"] == ["callers"]


async def test_from_the_first_caller_on_strangers_are_refused() -> None:
    async with gateway(callers=()) as (proxy, _):
        config = proxy.app.config
        proxy.app.reload(lambda: with_callers(config, REPORTING))

        assert (await call(proxy.port, request_head())).status == 401
        assert (await call(proxy.port, request_head(extra=BEARER))).status == 200


# -- browsers, and the other ports ----------------------------------------------------------------

PREFLIGHT = f"Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n"


@pytest.mark.parametrize(
    ("origins", "status"),
    [pytest.param((PAGE,), 204, id="allowed"), pytest.param((), 403, id="not allowed")],
)
async def test_a_preflight_needs_no_key_but_an_origin(
    origins: tuple[str, ...], status: int
) -> None:
    """It never carries credentials (Fetch, CORS-preflight fetch), and never reaches the API."""
    async with gateway(browser=BrowserConfig(allow_origins=origins)) as (proxy, api):
        asked = request_head("OPTIONS", tag=None, extra=PREFLIGHT)
        answer = await call(proxy.port, asked)

        assert answer.status == status
        assert api.visits == 0


async def test_a_page_may_read_why_it_was_not_let_in() -> None:
    async with gateway(browser=BrowserConfig(allow_origins=(PAGE,))) as (proxy, _):
        answer = await call(proxy.port, request_head(extra=f"Origin: {PAGE}\r\n"))

    assert answer.status == 401
    assert answer.values(b"Access-Control-Allow-Origin") == [PAGE.encode()]


async def test_the_admin_port_asks_for_no_key() -> None:
    async with gateway() as (proxy, _):
        port = int(proxy.app.admin.address.rpartition(":")[2])
        answer = await call(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert answer.status == 200


async def test_webhooks_ask_for_their_signature_and_for_no_key() -> None:
    webhooks = WebhooksConfig(bind="127.0.0.1:0", secret=Secret("s"))
    async with gateway(webhooks=webhooks) as (proxy, _):
        assert proxy.app.webhooks is not None
        port = int(proxy.app.webhooks.address.rpartition(":")[2])
        unsigned = request_head("POST", "/webhooks", tag=None, extra="Content-Length: 0\r\n")

        assert (await call(port, unsigned)).problem["code"] == "webhook-refused"


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "*:0"])
async def test_keys_in_the_open_are_warned_of_at_start(bind: str) -> None:
    async with gateway(listener={"bind": bind}) as (proxy, _):
        [line] = proxy.log("callers.unencrypted")

        assert line["listeners"] == [bind]
        assert (await call(proxy.port, request_head())).status == 401


def test_the_address_needs_no_other_word() -> None:
    listener = ListenerConfig(bind="0.0.0.0:0")

    assert with_callers(config_for("http://127.0.0.1:1"), REPORTING).callers
    assert replace(
        config_for("http://127.0.0.1:1", callers=(REPORTING,)), listeners=(listener,)
    ).listeners == (listener,)


# -- as a user would ------------------------------------------------------------------------------


async def test_the_program_takes_callers_from_its_file_and_withdraws_them(
    emulator: Emulator, tmp_path: Path
) -> None:
    tag = next(iter(emulator.world.installations))
    file = tmp_path / "icr-proxy.yaml"
    file.write_text(f"callers:\n  - name: reporting\n    keys:\n      - {hash_of(KEY)}\n")

    async with program_before(emulator, tmp_path, "--config", str(file)) as program:
        asked = request_head(tag=tag, extra=BEARER)
        known: RawAnswer = await call(program.port, asked)
        stranger = await call(program.port, request_head(tag=tag))
        file.write_text(f"callers:\n  - name: reporting\n    keys:\n      - {hash_of(OLD_KEY)}\n")
        await program.until("config.reloaded")
        withdrawn = await call(program.port, asked)

    assert [known.status, stranger.status, withdrawn.status] == [200, 401, 401]
    assert TAG.encode() not in known.body

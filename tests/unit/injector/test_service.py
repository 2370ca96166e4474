"""The webhook from start to stop, over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.errors import StartError
from icr_proxy.injector.service import Injector, Setting, pause, serve
from tests.support.app_fixture import Clock, RawAnswer, read_answer
from tests.support.certificate_authority import authority, server_certificate, trusting
from tests.support.fake_cluster import Api, api_server
from tests.support.pods import ASKED, DEFAULTS, pod, review

SIGNED = Setting(bind="127.0.0.1:0", names=("localhost", "127.0.0.1"), look_seconds=0.02)


def published_at(api: Api, **more: Any) -> Setting:
    return replace(SIGNED, webhook="icr-proxy-injector", cluster=api.cluster, **more)


class Heard:
    """A `Log` that keeps what it is told, and tells who waits for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []
        self._arrived = asyncio.Event()

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))
        self._arrived.set()

    debug = warning = error = info

    async def until(self, event: str) -> dict[str, object]:
        async with asyncio.timeout(20):
            while True:
                for name, fields in self.lines:
                    if name == event:
                        return fields
                self._arrived.clear()
                await self._arrived.wait()


def injector(setting: Setting, heard: Heard, *, clock: Any = None) -> Injector:
    return Injector(setting, DEFAULTS, log=heard, now=clock or SYSTEM_CLOCKS.now)


async def ask(address: str, request: bytes, *, trust: ssl.SSLContext) -> RawAnswer:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trust)
    try:
        writer.write(request)
        return await read_answer(reader)
    finally:
        writer.transport.abort()


def believing(pem: object) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=str(pem))


GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_certificate_of_somebody_elses_is_shown(tmp_path: Path) -> None:
    cert, key = server_certificate().write(tmp_path)
    setting = Setting(bind="127.0.0.1:0", tls=TlsConfig(cert=cert, key=key))
    body = json.dumps(review(pod(ASKED))).encode()
    head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    async with injector(setting, Heard()) as found:
        answer = await ask(found.address, head + body, trust=trusting(authority()))

    assert json.loads(answer.body)["response"]["allowed"] is True


async def test_one_of_its_own_is_believed_by_whoever_believes_what_it_logs() -> None:
    heard = Heard()

    async with injector(SIGNED, heard) as found:
        told = await heard.until("injector.ready")
        answer = await ask(found.address, GET % b"/ca.pem", trust=believing(told["ca"]))

    assert answer.body.decode() == told["ca"]


async def test_what_it_made_for_itself_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async with injector(SIGNED, Heard()):
        assert [each.name for each in all_below(tmp_path)].count("ca.key") == 1

    assert all_below(tmp_path) == []


async def test_it_is_renewed_while_serving(tmp_path: Path) -> None:
    heard, clock = Heard(), Clock(SYSTEM_CLOCKS.now())

    async with injector(replace(SIGNED, state=tmp_path), heard, clock=clock) as found:
        first = (tmp_path / "tls.crt").read_bytes()
        clock.at += 380 * 86_400
        async with asyncio.timeout(20):
            while (tmp_path / "tls.crt").read_bytes() == first:  # noqa: ASYNC110  # a file tells nobody
                await asyncio.sleep(0.01)
        shown = await shown_by(found.address)

    assert shown == pem_to_der(tmp_path / "tls.crt")
    assert any(name == "tls.renewed" for name, _ in heard.lines)


async def test_the_api_is_told_and_then_it_is_ready(tmp_path: Path) -> None:
    heard = Heard()
    with api_server(tmp_path) as api:
        setting = replace(SIGNED, webhook="icr-proxy-injector", cluster=api.cluster)
        async with injector(setting, heard) as found:
            told = await heard.until("injector.published")
            pem = (await heard.until("injector.ready"))["ca"]
            answer = await ask(found.address, GET % b"/readyz", trust=believing(pem))
        bundle = api.stored["webhooks"][0]["clientConfig"]["caBundle"]

    assert answer.status == 200
    assert [name for name, _ in heard.lines] == [
        "injector.listening",
        "injector.published",
        "injector.ready",
    ]
    assert told == {"webhook": "icr-proxy-injector"}
    assert base64.b64decode(bundle).decode() == pem


async def test_what_an_upgrade_of_the_chart_undoes_is_done_again(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        setting = replace(SIGNED, webhook="icr-proxy-injector", cluster=api.cluster)
        async with injector(setting, Heard()):
            await api.until_changed()
            api.stored["webhooks"][0]["clientConfig"].pop("caBundle")
            await api.until_changed()

        assert api.stored["webhooks"][0]["clientConfig"]["caBundle"]


async def test_what_is_there_is_published_once(tmp_path: Path) -> None:
    heard = Heard()
    with api_server(tmp_path) as api:
        setting = replace(SIGNED, webhook="icr-proxy-injector", cluster=api.cluster)
        async with injector(setting, heard):
            async with asyncio.timeout(20):
                while len(api.asked) < 4:  # noqa: ASYNC110  # the scripted API is in a thread
                    await asyncio.sleep(0.01)

    assert [name for name, _ in heard.lines].count("injector.published") == 1
    assert sum(each.startswith("PATCH") for each in api.asked) == 1


async def test_while_the_api_says_no_it_serves_and_is_not_ready(tmp_path: Path) -> None:
    heard = Heard()
    with api_server(tmp_path) as api:
        (api.account / "token").write_text("expired")
        setting = published_at(api, ca_file=tmp_path / "ca.pem")
        async with injector(setting, heard) as found:
            told = await heard.until("injector.failing")
            trust = believing((tmp_path / "ca.pem").read_text())
            ready = await ask(found.address, GET % b"/readyz", trust=trust)
            alive = await ask(found.address, GET % b"/healthz", trust=trust)

    assert told == {"detail": "the Kubernetes API answered 401 to: get icr-proxy-injector"}
    assert (ready.status, alive.status) == (503, 200)
    assert "injector.ready" not in [name for name, _ in heard.lines]


async def test_while_its_authority_cannot_be_put_back_it_is_not_ready(tmp_path: Path) -> None:
    """After `kubectl replace` of the webhook, whoever would call it would not trust it."""
    heard = Heard()
    with api_server(tmp_path) as api:
        async with injector(published_at(api), heard) as found:
            trust = believing((await heard.until("injector.ready"))["ca"])
            api.conflicts = 1_000_000
            api.stored["webhooks"][0]["clientConfig"].pop("caBundle")
            await heard.until("injector.failing")
            missing = await ask(found.address, GET % b"/readyz", trust=trust)
            api.conflicts = 0
            api.changed.clear()
            await api.until_changed()
            async with asyncio.timeout(20):
                while (await ask(found.address, GET % b"/readyz", trust=trust)).status != 200:
                    pass

    assert missing.status == 503
    assert [name for name, _ in heard.lines].count("injector.ready") == 1


async def test_an_api_that_comes_back_is_asked_again_soon(tmp_path: Path) -> None:
    """It starts while the API is away; a look a minute later would be too late."""
    heard = Heard()
    with api_server(tmp_path) as api:
        api.statuses = [500, 500]
        async with injector(published_at(api, look_seconds=3600.0), heard):
            async with asyncio.timeout(20):
                await heard.until("injector.ready")

    assert [name for name, _ in heard.lines].count("injector.failing") == 2


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 10.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (5000, 10.0)],
)
def test_it_waits_longer_after_each_failure(failures: int, seconds: float) -> None:
    assert pause(failures, look_seconds=10.0) == seconds


async def test_a_mistake_of_ours_does_not_end_the_watch(tmp_path: Path) -> None:
    def mistaken() -> float:
        if heard.lines:
            raise RuntimeError("secret")
        return SYSTEM_CLOCKS.now()

    heard = Heard()
    async with injector(replace(SIGNED, state=tmp_path), heard, clock=mistaken):
        told = await heard.until("injector.crashed")

    assert told["error"] == "RuntimeError"
    assert "secret" not in repr(heard.lines)


@pytest.mark.parametrize(
    ("drain_seconds", "signals"),
    [pytest.param(0.01, 1, id="after a moment"), pytest.param(600.0, 2, id="or at once")],
)
async def test_it_ends_when_told_to(drain_seconds: float, signals: int) -> None:
    heard = Heard()
    setting = replace(SIGNED, drain_seconds=drain_seconds)
    serving = asyncio.ensure_future(serve(setting, DEFAULTS, log=heard, now=SYSTEM_CLOCKS.now))
    await heard.until("injector.ready")

    for _ in range(signals):
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await serving

    assert heard.lines[-1] == ("injector.stopped", {})


async def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    tls = TlsConfig(cert=tmp_path / "no.crt", key=tmp_path / "no.key")

    with pytest.raises(StartError, match=r"no\.crt cannot be read"):
        async with injector(Setting(bind="127.0.0.1:0", tls=tls), Heard()):
            pass


def all_below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def shown_by(address: str) -> bytes:
    """Give the certificate that is shown, without judging it."""
    host, _, port = address.rpartition(":")
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, int(port), ssl=blind)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


def pem_to_der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())

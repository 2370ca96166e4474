"""`icr-proxy demo`: the main job in six scenes, on an emulated API, each checked as it is shown."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from icr_proxy.config.inbound_models import ListenerConfig
from icr_proxy.config.models import AdminConfig, AppConfig, Config, UpstreamConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.errors import StartError
from icr_proxy.redaction import Secret
from icr_proxy.runtime import bootstrap
from icr_proxy.runtime.app import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.emulator.traffic import SeenRequest

OK, FAILED = 0, 1
TAG = "X-ICR-Installation-Id"
CONCURRENT = 10
SHOWN_METRICS = (
    "icr_proxy_requests_total",
    "icr_proxy_token_mints_total",
    'icr_proxy_replays_total{result="healed"}',
)


class UnexpectedError(Exception):
    """What was shown is not what was promised."""


@dataclass(frozen=True, slots=True)
class DemoResponse:
    """What the tool without credentials got."""

    status: int
    headers: dict[str, str]
    body: bytes


def play(*, keep: bool) -> int:
    """Show everything; give the exit code, 0 or 1."""
    try:
        bootstrap.run_command(_play(keep=keep))
    except (UnexpectedError, StartError, OSError) as error:
        click.secho(f"\nThe demo failed: {error}", fg="red", err=True)
        return FAILED
    return OK


async def _play(*, keep: bool) -> None:
    log = io.BytesIO()
    click.echo("Starting an emulated ICR API and, in front of it, icr-proxy …")
    async with Emulator() as emulator:
        config = Config(
            app=AppConfig(id=emulator.app_id, private_key=Secret(emulator.private_key_pem)),
            upstream=UpstreamConfig(base_url=emulator.base_url),
            listeners=(ListenerConfig(bind="127.0.0.1:0"),),
            admin=AdminConfig(bind="127.0.0.1:0"),
        )
        async with App(config, stream=log) as app:
            stage = Stage(emulator=emulator, app=app, log=log)
            for number, scene in enumerate(SCENES, start=1):
                title = (scene.__doc__ or "").partition("\n")[0]
                click.secho(f"\n{number}. {title}", bold=True)
                await scene(stage)
            click.secho("\nAll of it went as promised.", fg="green", bold=True)
            if keep:
                await _keep(stage)


class Stage:
    """The running pieces, and the tool that knows nothing of authentication."""

    def __init__(self, *, emulator: Emulator, app: App, log: io.BytesIO) -> None:
        self.emulator = emulator
        self.app = app
        self._log = log
        self.installations = list(emulator.world.installations.values())

    def inventory(self, number: int) -> str:
        """Path of the inventory of the organization of an installation."""
        return f"/organizations/{self.installations[number].organization.id}/inventory"

    async def ask(
        self, path: str, *, installation: int | None, method: str = "GET"
    ) -> DemoResponse:
        """Send a plain request, as the tool would."""
        tag = {} if installation is None else {TAG: self.installations[installation].id}
        return await asyncio.to_thread(_ask, self.app.address, method, path, tag)

    @property
    def last_seen(self) -> SeenRequest:
        """The last request that reached the API."""
        return self.emulator.world.requests[-1]

    def log_lines(self) -> list[dict[str, Any]]:
        """What the proxy has logged about requests."""
        self.app.inbound.dispatcher.flush()
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "request.done"]


def _ask(address: str, method: str, path: str, headers: dict[str, str]) -> DemoResponse:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return DemoResponse(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


async def plain_request(stage: Stage) -> None:
    """A tool asks without any credentials; one header says for which installation."""
    _show(f"curl -H '{TAG}: {stage.installations[0].id}' \\")
    _show(f"     http://{stage.app.address}{stage.inventory(0)}")
    reply = await stage.ask(stage.inventory(0), installation=0)
    _expect(reply.status == http.client.OK, f"the answer is {reply.status}, not 200")
    credits_held = json.loads(reply.body)["credits"]
    _say(f"HTTP 200: {len(credits_held)} kinds of credits, the first of them:")
    _show(json.dumps({k: credits_held[0][k] for k in ("serialization", "amount", "unit")}))


async def what_the_api_saw(stage: Stage) -> None:
    """What the API received is another request: authenticated, versioned, without the tag."""
    seen = stage.last_seen
    for name, value in seen.headers:
        text = value.decode()
        if name.lower() == b"authorization":
            text = f"{text[:11]}… (the rest is not for your screen)"
        _show(f"{name.decode()}: {text}")
    _expect(seen.values("authorization")[0].startswith("Bearer crs_"), "no token was injected")
    _expect(seen.values("x-icr-api-version") == ["2023-06-16"], "the version is not right")
    _expect(not seen.values(TAG), "the tag was passed on")


async def one_mint_for_many(stage: Stage) -> None:
    """Ten requests at once for an installation that has no token yet cause one mint."""
    asked = [stage.ask(stage.inventory(1), installation=1) for _ in range(CONCURRENT)]
    statuses = [reply.status for reply in await asyncio.gather(*asked)]
    mints = stage.emulator.world.mints[stage.installations[1].id]
    _say(f"{statuses.count(http.client.OK)} answers with HTTP 200, {mints} token minted.")
    _expect(statuses == [http.client.OK] * CONCURRENT, f"the answers are {statuses}")
    _expect(mints == 1, f"{mints} tokens were minted")


async def healed(stage: Stage) -> None:
    """The API revokes the token; the next request does not notice."""
    stage.emulator.world.revoke_all(stage.installations[0].id)
    reply = await stage.ask(stage.inventory(0), installation=0)
    line = stage.log_lines()[-1]
    _say(
        f"HTTP {reply.status} after {line['attempts']} attempts: the token was refused, and again a"
        f" moment later; a new one (generation {line['token_generation']}) was minted and taken."
    )
    _expect(reply.status == http.client.OK, f"the answer is {reply.status}, not 200")


async def refused(stage: Stage) -> None:
    """A request that names no installation is refused, in words that help."""
    reply = await stage.ask(stage.inventory(0), installation=None)
    for member, value in json.loads(reply.body).items():
        _show(f"{member}: {value}")
    code = reply.headers.get("X-ICR-Proxy-Error")
    _expect(code == "installation-required", f"the code is {code}")


async def traces(stage: Stage) -> None:
    """Each request leaves a log line, and metrics that add up."""
    line = stage.log_lines()[0]
    _show(json.dumps({k: line[k] for k in ("ts", "event", "status", "operation", "installation")}))
    _show(json.dumps({k: line[k] for k in ("duration_ms", "token_wait_ms", "token", "request_id")}))
    text = await asyncio.to_thread(_ask, stage.app.admin.address, "GET", "/metrics", {})
    samples = text.body.decode().splitlines()
    for name in SHOWN_METRICS:
        _show(next(sample for sample in samples if sample.startswith(name)))


SCENES: tuple[Callable[[Stage], Any], ...] = (
    plain_request,
    what_the_api_saw,
    one_mint_for_many,
    healed,
    refused,
    traces,
)


async def _keep(stage: Stage) -> None:
    """Leave everything running until Ctrl-C."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    tag = f"-H '{TAG}: {stage.installations[0].id}'"
    base = f"http://{stage.app.address}"
    admin = f"http://{stage.app.admin.address}"
    click.echo(f"\nStill running; Ctrl-C ends it. The live console: {admin}/\n\nThings to try:\n")
    for line in (
        f"curl {tag} {base}{stage.inventory(0)}",
        f"curl {tag} {base}/v1/projects",
        f"curl -i {tag} {base}/app/installations",
        f"curl {admin}/status",
        f"curl {admin}/metrics",
        f"curl {stage.emulator.base_url}/_emulator/state",
    ):
        _show(line)
    await stopped.wait()


def _say(text: str) -> None:
    click.echo(f"   {text}")


def _show(text: str) -> None:
    click.secho(f"   | {text}", fg="cyan")


def _expect(held: bool, otherwise: str) -> None:  # noqa: FBT001  # reads as a sentence
    if not held:
        raise UnexpectedError(otherwise)

"""The command line: arguments in, exit code out. Each command imports what it needs itself."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icr_proxy import __version__
from icr_proxy.cli.options import FAILED, USAGE, Command, loader, settings
from icr_proxy.errors import BindError, ConfigError, StartError
from icr_proxy.runtime import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from icr_proxy.config.models import Config
    from icr_proxy.observability.log_writer import LogWriter

# Commands that serving never needs, and the modules that have them.
ELSEWHERE = {
    "audit": "icr_proxy.cli.audit",
    "doctor": "icr_proxy.cli.diagnose",
    "explain": "icr_proxy.cli.diagnose",
    "injector": "icr_proxy.cli.injector",
    "installations": "icr_proxy.cli.diagnose",
    "keys": "icr_proxy.cli.keys",
}


class Commands(click.Group):
    """All commands; those from elsewhere are imported when somebody asks for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them all."""
        return sorted({*super().list_commands(ctx), *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give one, by name."""
        if cmd_name in ELSEWHERE and cmd_name not in self.commands:
            self.add_command(getattr(import_module(ELSEWHERE[cmd_name]), cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96}
)
@click.version_option(__version__, "-V", "--version", prog_name="icr-proxy")
def commands() -> None:
    """A transparent authenticating reverse proxy in front of the ICR carbon-registry API.

    Callers name an installation in one header; the proxy adds its access token and the API
    version, and streams the answer back untouched.

    Try it first: icr-proxy demo
    """


@commands.command(
    cls=Command,
    epilog="""
    ICR_PROXY_APP__ID=… ICR_PROXY_APP__PRIVATE_KEY_FILE=app.pem icr-proxy run
    icr-proxy run --config icr-proxy.yaml --read-only
    curl -H 'X-ICR-Installation-Id: …' http://127.0.0.1:8080/organizations/…/inventory
    """,
)
@settings
@click.pass_obj
def run(streams: Callable[[], LogWriter], /, file: Path | None, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends at once. SIGHUP reloads.

    Exits with 0 after a complete drain, 1 if requests were cut off or the address is taken, 2 if
    the configuration cannot be used.
    """
    out = streams()
    from icr_proxy.runtime.partial_imports import leave_out  # noqa: PLC0415

    leave_out()
    from icr_proxy.runtime.process import run as run_app  # noqa: PLC0415  # which imports all that serves

    sys.exit(run_app(load=loader(file, options), file=file, stream=out))


@commands.command(
    cls=Command,
    epilog="""
    icr-proxy check --config icr-proxy.yaml
    icr-proxy check --schema > icr-proxy.schema.json
    """,
)
@settings
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file and do no more.")
def check(file: Path | None, *, schema: bool, **options: Any) -> None:
    """Check the configuration and all that it names, as `run` would; serve and send nothing.

    Files are read, directories and addresses are tried and left as they were. What is in use by
    a proxy that is running already (it answers at admin.bind) is a warning. All mistakes in the
    configuration itself are told at once.

    Exits with 0, 1 if an address cannot be had, 2 for everything else that `run` refuses.
    """
    from icr_proxy.config import reference  # noqa: PLC0415

    if schema:
        import json  # noqa: PLC0415

        click.echo(json.dumps(reference.json_schema(), indent=2))
        return
    config = loader(file, options)()

    fingerprints, warnings = bootstrap.run_command(_dry_run(config))
    webhooks = config.webhooks
    if webhooks.secret_file is not None and webhooks.bind is None:  # `run` has no use for it yet
        from icr_proxy.redaction import read_secret  # noqa: PLC0415

        read_secret(webhooks.secret_file, key="webhooks.secret_file")
    for key, value in reference.describe(config):
        click.echo(f"{key}: {value}")
    for warning in (*warnings, *_check_files(config)):
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"\nThe configuration is good. Key {', '.join(fingerprints)}")


async def _dry_run(config: Config) -> tuple[list[str], list[str]]:
    """Build what `run` builds, and try to start it; give the keys' fingerprints, and warnings."""
    import io  # noqa: PLC0415

    from icr_proxy.runtime.app import App  # noqa: PLC0415

    app = App(config, stream=io.BytesIO())
    try:
        return list(app.credentials.keys.states), await app.dry_run()
    finally:
        await app.stop()


def _check_files(config: Config) -> Iterator[str]:
    """Give what is no error but looks like one."""
    from icr_proxy.credentials.key_ring import load_keys  # noqa: PLC0415
    from icr_proxy.net.egress_proxy import unused_proxies  # noqa: PLC0415
    from icr_proxy.runtime.file_permissions import exposed_secrets  # noqa: PLC0415

    if config.app.private_keys_dir is not None:
        yield from (error.detail for error in load_keys(config.app).rejected)
    yield from _check_tls(config)
    yield from map(str, exposed_secrets(config))
    for name in unused_proxies(os.environ, base_url=config.upstream.base_url):
        yield f"{name} in the environment is not used; connections are direct"


def _check_tls(config: Config) -> Iterator[str]:
    """Read the files of all listeners with TLS; give what is no error but looks like one."""
    if all(listener.tls.cert is None for listener in config.listeners):
        return
    from icr_proxy.clock import SYSTEM_CLOCKS  # noqa: PLC0415
    from icr_proxy.net.tls import read_identity  # noqa: PLC0415

    for at, listener in enumerate(config.listeners):
        if listener.tls.cert is not None:
            key = f"listeners[{at}].tls"
            complaint = read_identity(listener.tls, key=key).complaint(now=SYSTEM_CLOCKS.now())
            if complaint is not None:
                yield f"{key}.cert: the certificate in {listener.tls.cert} {complaint}"


def admin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that says which proxy to ask."""
    return click.option(
        "--admin",
        default="127.0.0.1:9090",
        envvar="ICR_PROXY_ADMIN__BIND",
        show_default=True,
        metavar="HOST:PORT",
        help="Admin address of the proxy, or unix:/path; also ICR_PROXY_ADMIN__BIND.",
    )(command)


@commands.command(cls=Command, epilog="icr-proxy wait --timeout 30 && start-the-tool")
@admin_option
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Give up.")
@click.option(
    "--listener",
    metavar="HOST:PORT",
    help="Wait until a connection to this listener can be made; the admin port is not asked.",
)
def wait(admin: str, timeout: float, listener: str | None) -> None:
    """Wait until the proxy is ready; for start order. Exits with 0, or 1 when time is up."""
    from icr_proxy.admin.client import reach, wait_until_ready  # noqa: PLC0415

    if listener is None:
        said = wait_until_ready(_bind(admin), timeout=timeout)
    else:
        bind = _bind(listener, flag="--listener")
        said = wait_until_ready(bind, timeout=timeout, attempt=reach)
    if said is not None:
        raise click.ClickException(f"not ready after {timeout:g} s: {said}")


@commands.command(cls=Command, epilog="icr-proxy health --ready")
@admin_option
@click.option("--ready", is_flag=True, help="Ask if it is ready, not only alive.")
def health(admin: str, *, ready: bool) -> None:
    """Ask a running proxy how it is; for probes. Exits with 0 or 1."""
    from icr_proxy.admin.client import ask  # noqa: PLC0415

    said = ask(_bind(admin), "/readyz" if ready else "/healthz")
    if said is not None:
        raise click.ClickException(said)
    click.echo("ok")


@commands.command("quit", cls=Command, epilog="run-the-job; icr-proxy quit")
@admin_option
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="ICR_PROXY_ADMIN__TOKEN_FILE",
    metavar="FILE",
    help="The proxy's admin.token_file, if it has one; also ICR_PROXY_ADMIN__TOKEN_FILE.",
)
def quit_(admin: str, token_file: Path | None) -> None:
    """Tell a proxy on this machine to stop, as SIGTERM does. Exits with 0 if it will, or 1."""
    from icr_proxy.admin.client import ask, token_header  # noqa: PLC0415

    try:
        headers = token_header(token_file)
    except StartError as error:
        raise click.ClickException(error.detail) from None
    said = ask(_bind(admin), "/quit", method="POST", headers=headers)
    if said is not None:
        raise click.ClickException(said)
    click.echo("quitting")


def _bind(given: str, *, flag: str = "--admin") -> str:
    from icr_proxy.net import addresses  # noqa: PLC0415

    try:
        bind = addresses.read_bind(given)
    except ValueError as exc:
        raise click.UsageError(f"{flag} {given!r} {exc}") from None
    if addresses.systemd_name(bind) is not None:
        raise click.UsageError(f"{flag} {given!r} is known to systemd only; give its address")
    return bind


@commands.command(cls=Command, epilog="icr-proxy emulator --port 9000 --key-file app.pem")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=9000, show_default=True, help="0 takes any.")
@click.option("--installations", default=3, show_default=True, help="How many to invent.")
@click.option(
    "--token-lifetime", default=7200.0, show_default=True, metavar="SECONDS", help="Of new tokens."
)
@click.option(
    "--invalid-token-status",
    type=click.Choice(["403", "401"]),
    default="403",
    show_default=True,
    help="Answer to an invalid token; which one the real API gives is not documented.",
)
@click.option("--latency", default=0.0, show_default=True, metavar="SECONDS", help="Added.")
@click.option(
    "--key-file", type=click.Path(path_type=Path), help="Where to write the app's private key."
)
@click.pass_obj
def emulator(
    streams: Callable[[], LogWriter],
    /,
    key_file: Path | None,
    invalid_token_status: str,
    **options: Any,
) -> None:
    """Run an ICR API with invented organizations and credits on this machine.

    It prints an app ID, a key and installations to use with `icr-proxy run`.
    """
    streams()
    from icr_proxy.emulator.command import serve  # noqa: PLC0415
    from icr_proxy.emulator.settings import EmulatorSettings  # noqa: PLC0415

    emulated = EmulatorSettings(invalid_token_status=int(invalid_token_status), **options)
    try:
        bootstrap.run_command(serve(emulated, key_file=key_file, echo=click.echo))
    except (OSError, UnicodeError) as exc:
        raise click.ClickException(f"the emulator cannot start: {exc}") from None


@commands.command(cls=Command, epilog="icr-proxy demo --keep")
@click.option("--keep", is_flag=True, help="Leave everything running, with curl lines to try.")
@click.pass_obj
def demo(streams: Callable[[], LogWriter], /, *, keep: bool) -> None:
    """Show the main job on an emulated API: no account, no network, half a minute.

    Exits with 0, or 1 with the reason.
    """
    streams()
    from icr_proxy.cli.demo import play  # noqa: PLC0415

    sys.exit(play(keep=keep))


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Run a command and end the process."""
    bootstrap.allow_interrupts(sys.argv[1:])
    with ExitStack() as streams:
        code = _run(lambda: _serve_streams(streams))
    bootstrap.leave(code)


def _serve_streams(until: ExitStack) -> LogWriter:
    """Let everything printed go through threads from now on; give what writes to stdout."""
    from icr_proxy.observability.log_writer import standard_streams_in_threads  # noqa: PLC0415

    return until.enter_context(standard_streams_in_threads())


def _run(streams: Callable[[], LogWriter]) -> int:
    """Run a command; what cannot start says why and what to do next. Give the exit code."""
    try:
        commands(prog_name="icr-proxy", obj=streams)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except ConfigError as error:
        _complain("the configuration cannot be used:", *(f"  {each}" for each in error.problems))
        return USAGE
    except (BindError, StartError) as error:
        _complain(error.detail)
        return FAILED if isinstance(error, BindError) else USAGE
    except OSError as error:  # as a rule of the output: a full disk, a terminal that has gone
        _complain(str(error))
        return FAILED
    except Exception:  # noqa: BLE001  # the outermost place: whatever it is, no thread is waited for
        sys.excepthook(*sys.exc_info())
        return FAILED
    return 0


def _complain(first: str, *more: str) -> None:
    with suppress(OSError):
        click.echo("\n".join((f"icr-proxy: {first}", *more)), err=True)

"""The command that adds the proxy to pods in Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icr_proxy.cli.options import Command
from icr_proxy.runtime import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.injector.service import Setting
    from icr_proxy.injector.sidecar import Defaults
    from icr_proxy.observability.log_writer import LogWriter

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    cls=Command,
    epilog="""
    icr-proxy injector --tls-cert tls.crt --tls-key tls.key --app-id ... --key-secret icr-app-keys
    icr-proxy injector --self-signed --for injector.icr.svc --patch-webhook icr-proxy-injector
    icr-proxy injector --listen 127.0.0.1:8443 --self-signed --for localhost --ca-file ca.pem
    """,
)
@click.option(
    "--listen",
    default="*:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the API server reaches it; * is every address, of IPv4 and of IPv6.",
)
@click.option("--tls-cert", type=FILE, metavar="FILE", help="Certificate; read anew if changed.")
@click.option("--tls-key", type=FILE, metavar="FILE", help="Its private key.")
@click.option("--self-signed", is_flag=True, help="Make and renew a certificate instead.")
@click.option(
    "--for",
    "names",
    multiple=True,
    metavar="NAME",
    help="Name in that certificate, as in SERVICE.NAMESPACE.svc; may be repeated.",
)
@click.option(
    "--state",
    type=FOLDER,
    metavar="DIR",
    help="Where the authority is kept from one start to the next; otherwise each makes its own.",
)
@click.option(
    "--ca-file", type=FILE, metavar="FILE", help="Where to write the authority's certificate."
)
@click.option(
    "--patch-webhook",
    metavar="NAME",
    help="Put it into the caBundle of this MutatingWebhookConfiguration, and keep it there.",
)
@click.option(
    "--service-account",
    type=FOLDER,
    default="/var/run/secrets/kubernetes.io/serviceaccount",
    show_default=True,
    metavar="DIR",
    help="Token and CA for that; the API is at KUBERNETES_SERVICE_HOST.",
)
@click.option("--image", metavar="IMAGE", help="The proxy's image.  [default: icr-proxy:VERSION]")
@click.option(
    "--pull-policy",
    type=click.Choice(["Always", "IfNotPresent", "Never"], case_sensitive=False),
    default="IfNotPresent",
    show_default=True,
    help="When it is pulled.",
)
@click.option(
    "--mode",
    type=click.Choice(["native", "plain"], case_sensitive=False),
    default="native",
    show_default=True,
    help="Kind of sidecar; Kubernetes before 1.29 has only plain ones.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["refuse", "pass"], case_sensitive=False),
    default="refuse",
    show_default=True,
    help="What becomes of a pod that has no room for a proxy: none, or one without a proxy.",
)
@click.option("--app-id", metavar="ID", help="App ID of pods that name none.")
@click.option("--key-secret", metavar="NAME", help="Secret of pods that name none.")
@click.option(
    "--requests",
    default="cpu=50m,memory=96Mi",
    show_default=True,
    metavar="AMOUNTS",
    help="Resources that a proxy requests; empty for none.",
)
@click.option(
    "--limits",
    default="cpu=1,memory=256Mi",
    show_default=True,
    metavar="AMOUNTS",
    help="Resources that it may use at most.",
)
@click.option(
    "--exclude-namespace",
    "excluded",
    multiple=True,
    metavar="NAME",
    help="Leave this namespace alone, as those of Kubernetes itself; may be repeated.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least important events to log.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"], case_sensitive=False),
    default="auto",
    show_default=True,
    help="JSON lines, or for people; auto asks the terminal.",
)
@click.pass_obj
def injector(streams: Callable[[], LogWriter], /, **options: Any) -> None:
    """Serve an admission webhook that adds the proxy to pods annotated icr-proxy/inject: "true".

    What a pod can ask for, what it gets, and how the webhook is registered is in
    docs/injector.md. The certificate comes from files, which are read anew when they change, or
    is made here (--self-signed).

    Exits with 0 after SIGTERM or SIGINT, 1 if the address is taken, 2 if it cannot be used so.
    """
    import uvloop  # noqa: PLC0415

    from icr_proxy.clock import SYSTEM_CLOCKS  # noqa: PLC0415
    from icr_proxy.config.models import LogsConfig  # noqa: PLC0415
    from icr_proxy.injector.service import serve  # noqa: PLC0415
    from icr_proxy.observability.log import LineBuffer, Threshold, build_log  # noqa: PLC0415

    setting, defaults = _setting(**options), _defaults(**options)
    log = build_log(
        LogsConfig(level=options["log_level"], format=options["log_format"]),
        lines=LineBuffer(streams()),
        threshold=Threshold(options["log_level"]),
        now=SYSTEM_CLOCKS.now,
    )
    bootstrap.run_service(
        serve(
            setting,
            defaults,
            log=log,
            now=SYSTEM_CLOCKS.now,
            leave_after=lambda seconds: bootstrap.leave_after(seconds, code=lambda: 0),
        ),
        new_loop=uvloop.new_event_loop,
    )


def _setting(
    *,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    self_signed: bool,
    names: tuple[str, ...],
    state: Path | None,
    ca_file: Path | None,
    patch_webhook: str | None,
    service_account: Path,
    **_others: Any,
) -> Setting:
    from icr_proxy.config.fields import BIND  # noqa: PLC0415
    from icr_proxy.config.inbound_models import TlsConfig  # noqa: PLC0415
    from icr_proxy.injector.authority import cluster_around  # noqa: PLC0415
    from icr_proxy.injector.service import Setting  # noqa: PLC0415

    if self_signed == bool(tls_cert or tls_key):
        raise click.UsageError("give --tls-cert and --tls-key, or else --self-signed")
    if self_signed != bool(names):
        raise click.UsageError("--self-signed and --for go together")
    if not self_signed and (state or ca_file or patch_webhook):
        raise click.UsageError("--state, --ca-file and --patch-webhook are for --self-signed")
    if not self_signed and not (tls_cert and tls_key):
        raise click.UsageError("--tls-cert and --tls-key go together")
    try:
        bind = BIND.read(listen)
    except ValueError as rule:
        raise click.UsageError(f"--listen {listen!r} {rule}") from None
    return Setting(
        bind=bind,
        tls=None if self_signed else TlsConfig(cert=tls_cert, key=tls_key),
        names=names,
        state=state,
        ca_file=ca_file,
        webhook=patch_webhook,
        cluster=cluster_around(os.environ, account=service_account) if patch_webhook else None,
    )


def _defaults(
    *,
    image: str | None,
    app_id: str | None,
    key_secret: str | None,
    requests: str,
    limits: str,
    excluded: tuple[str, ...],
    **others: Any,
) -> Defaults:
    from icr_proxy import __version__  # noqa: PLC0415
    from icr_proxy.config.fields import APP_ID  # noqa: PLC0415
    from icr_proxy.injector import annotations  # noqa: PLC0415
    from icr_proxy.injector.sidecar import Defaults, read_amounts  # noqa: PLC0415

    def read(flag: str, text: str | None, reader: Any) -> Any:
        try:
            return None if text is None else reader(text)
        except ValueError as rule:
            raise click.UsageError(f"{flag} {text!r} {rule}") from None

    return Defaults(
        image=read("--image", image or f"icr-proxy:{__version__}", annotations.IMAGE.read),
        pull_policy=others["pull_policy"],
        mode=others["mode"],
        on_conflict=others["on_conflict"],
        app_id=read("--app-id", app_id, APP_ID.read),
        key_secret=read("--key-secret", key_secret, annotations.OBJECT_NAME.read),
        requests=read("--requests", requests, read_amounts),
        limits=read("--limits", limits, read_amounts),
        excluded=frozenset(excluded),
    )

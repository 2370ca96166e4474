"""Commands that look at the way of a request without serving one."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from icr_proxy.cli.options import FAILED, USAGE, Command, loader, settings
from icr_proxy.errors import ConfigError, MintError, UpstreamError
from icr_proxy.runtime import bootstrap

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.admin.token_state import TokenState
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.installations import ListedInstallation
    from icr_proxy.doctor.findings import DoctorFinding
    from icr_proxy.forwarding.explain import Explanation

WIDEST = 100
SIGN_COLOURS = {"-": "red", "+": "green", " ": None}


# -- doctor ---------------------------------------------------------------------------------------


@click.command(
    cls=Command,
    epilog="""
    icr-proxy doctor --config icr-proxy.yaml
    icr-proxy doctor --installation 3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11
    icr-proxy doctor --json > doctor.json
    """,
)
@settings
@click.option("--installation", metavar="ID", help="Try this installation only.")
@click.option("--all", "everyone", is_flag=True, help="Try all installations, not only 20.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in the end.")
def doctor(file: Path | None, *, as_json: bool, **options: Any) -> None:
    """Go the whole way of a credential, step by step, with a remedy for each failure.

    Looks at configuration, key, network, certificate and clock; then signs in at the API, has a
    token made for each installation, tries one with a harmless read, and revokes them all.

    Exits with 0 if nothing failed, 1 if something did, 2 if there is no configuration to examine.
    """
    from icr_proxy.doctor.findings import as_json as document  # noqa: PLC0415
    from icr_proxy.doctor.findings import failed, summary  # noqa: PLC0415

    findings: list[DoctorFinding] = []

    def tell(finding: DoctorFinding) -> None:
        findings.append(finding)
        if not as_json:
            show(finding)

    code = _examine(file, options, tell)
    if as_json:
        click.echo(document(findings).encode("utf-8", "replace"))  # JSON, in any locale
    else:
        colour = "red" if failed(findings) else "green"
        click.secho(f"\n{summary(findings)}", fg=colour, bold=True)
    sys.exit(code or (FAILED if failed(findings) else 0))


def _examine(file: Path | None, options: dict[str, Any], tell: Any) -> int:
    """Tell all findings; give the exit code if they alone do not decide it."""
    from icr_proxy.doctor.examination import CONFIGURATION, examine, not_examined  # noqa: PLC0415
    from icr_proxy.doctor.findings import (  # noqa: PLC0415
        Case,
        DoctorFinding,
    )
    from icr_proxy.doctor.session import AppSession  # noqa: PLC0415

    installation = _installation(options["installation"])
    try:
        config = loader(file, options)()
    except ConfigError as error:
        for finding in not_examined(error.problems):
            tell(finding)
        return USAGE
    source = f"{file} and the environment" if file else "from the environment"
    tell(DoctorFinding(CONFIGURATION, "ok", f"{source}; the API is {config.upstream.base_url}"))

    async def visit() -> None:
        async with AppSession(config) as session:
            case = Case(
                session=session,
                environ=os.environ,
                installation=installation,
                everyone=options["everyone"],
            )
            await examine(case, tell=tell)

    bootstrap.run_command(visit())
    return 0


def _installation(given: str | None) -> str | None:
    from icr_proxy.identifiers import canonical_id, is_id  # noqa: PLC0415

    if given is not None and not is_id(given.encode("utf-8", "surrogateescape")):
        raise click.UsageError("--installation takes an ID: 1 to 64 letters, digits, - or _")
    return None if given is None else canonical_id(given)


def show(finding: DoctorFinding) -> None:
    """Print a finding as soon as it is known."""
    from icr_proxy.doctor.findings import COLOURS, STATE_WIDTH, lines  # noqa: PLC0415

    width = min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else None
    first, *rest = lines(finding, width=width)
    state = click.style(f"{finding.state:<{STATE_WIDTH}}", fg=COLOURS[finding.state], bold=True)
    click.echo(f"{state} {first}")
    for line in rest:
        click.echo(line)


# -- installations --------------------------------------------------------------------------------


@click.command(cls=Command, epilog="icr-proxy installations --json | jq -r '.[].id'")
@settings
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def installations(file: Path | None, *, as_json: bool, **options: Any) -> None:
    """List the installations of the app: ID, organization, permissions.

    Suspended ones are not in the API's list. Exits with 0, 1 if there is no list, 2 if the
    configuration cannot be used.
    """
    config = loader(file, options)()
    try:
        found = bootstrap.run_command(_list(config))
    except (MintError, UpstreamError) as error:
        raise click.ClickException(f"{error.detail}; `icr-proxy doctor` tells why") from None
    if as_json:
        import msgspec  # noqa: PLC0415

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    for installation in found:
        _show_installation(installation)
    if not found:
        click.echo("The app is installed on no organization.", err=True)


async def _list(config: Config) -> list[ListedInstallation]:
    from icr_proxy.doctor.session import AppSession  # noqa: PLC0415

    async with AppSession(config) as session:
        await session.measure_skew()
        return await session.list_installations()


def _show_installation(installation: ListedInstallation) -> None:
    click.secho(installation.id, bold=True)
    name = installation.organization_name or "(no name)"
    click.echo(f"  organization  {installation.organization_id or '(no id)'}  {name}")
    granted = (f"{name} {level}" for name, level in sorted(installation.permissions.items()))
    click.echo(f"  permissions   {', '.join(granted) or '(none told)'}")


# -- explain --------------------------------------------------------------------------------------


@click.command(
    cls=Command,
    epilog="""
    icr-proxy explain GET /organizations/1b0e…/inventory -H 'X-ICR-Installation-Id: 3b0c…'
    icr-proxy explain POST http://127.0.0.1:8080/v1/retire -H 'X-ICR-Installation-Id: 3b0c…'
    """,
)
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="HEADER", help="'Name: value'; repeatable."
)
@click.option("--listener", metavar="HOST:PORT", help="Where it arrives; else the first listener.")
@click.option("--caller", metavar="NAME", help="Who sends it; else a key in -H tells.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@settings
def explain(
    method: str,
    url: str,
    headers: tuple[str, ...],
    *,
    listener: str | None,
    caller: str | None,
    file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what would happen to a request: route, policy, headers. Sends nothing to the API.

    URL is a path, the address of a listener, or a URL of the API. The state of the token is asked
    of the admin port, if a proxy runs there. Credentials are masked.

    Exits with 0 if the request would be served, 1 if it would be refused, 2 for a request or a
    configuration that makes no sense.
    """
    from icr_proxy.forwarding.explain import arrive  # noqa: PLC0415
    from icr_proxy.forwarding.explain import explain as follow  # noqa: PLC0415
    from icr_proxy.forwarding.explain_output import as_json as document  # noqa: PLC0415

    config = loader(file, options)()
    try:
        question = arrive(config, method, url, headers, listener=listener, caller=caller)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    explanation = follow(config, question)
    token = _token_state(config, explanation)
    if as_json:
        said = document(explanation, config=config, token=token)
        click.echo(said.encode("utf-8", "replace"))  # JSON, in any locale
    else:
        _show_explanation(explanation, config=config, token=token)
    sys.exit(FAILED if explanation.refusal is not None else 0)


def _token_state(config: Config, explanation: Explanation) -> TokenState | None:
    from icr_proxy.identifiers import TokenKey  # noqa: PLC0415

    key = explanation.credential
    if not isinstance(key, TokenKey) or explanation.refusal is not None:
        return None
    from icr_proxy.admin.token_state import ask_token_state  # noqa: PLC0415

    return ask_token_state(
        config.admin.bind,
        key,
        app=config.app.id,
        upstream=config.upstream.base_url,
        token_file=config.admin.token_file,
    )


def _show_explanation(
    explanation: Explanation, *, config: Config, token: TokenState | None
) -> None:
    from icr_proxy.forwarding import explain_output  # noqa: PLC0415

    question = explanation.question
    click.secho(f"{question.method} {explain_output.shown_target(question.target)}", bold=True)
    for name, text in explain_output.rows(explanation, config=config, token=token):
        click.echo(f"  {name:<13} {text}")
    if explanation.edits:
        click.echo("  headers")
        for edit in explanation.edits:
            click.secho(f"    {explain_output.edit_line(edit)}", fg=SIGN_COLOURS[edit.sign])
    colour = "red" if explanation.refusal is not None else "green"
    click.secho(f"\n{explain_output.verdict(explanation)}", fg=colour, bold=True)

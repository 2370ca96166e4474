"""Commands for the audit trail: verify it and follow it; `audit_queries` has the others."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icr_proxy.cli.audit_queries import export, query, report, suggest_policy
from icr_proxy.cli.options import FAILED, Command

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from icr_proxy.audit_tools.findings import WitnessedRecord

POLL_SECONDS = 0.2
LEAST_PREFIX = 12  # hex digits of a hash; what the metric holds


@click.group()
def audit() -> None:
    """Verify, search, sum up and export the audit trail."""


for command in (query, report, export, suggest_policy):
    audit.add_command(command)


@audit.command(
    cls=Command,
    epilog="""
    icr-proxy audit verify /var/lib/icr-proxy/audit --key-file audit.key
    icr-proxy audit verify DIR --key-file new.key --key-file old.key --anchor-file icr.anchor
    icr-proxy audit verify DIR --key-file audit.key --head 40211:9f86d081884c
    icr-proxy audit verify DIR --key-file audit.key --head-metric 40211:175401372584012
    """,
)
@click.argument(
    "paths",
    type=click.Path(exists=True, path_type=Path),
    envvar="ICR_PROXY_AUDIT__DIRECTORY",
    nargs=-1,
    required=True,
)
@click.option(
    "--key-file",
    "key_files",
    type=click.Path(path_type=Path),
    envvar="ICR_PROXY_AUDIT__KEY_FILE",
    multiple=True,
    metavar="FILE",
    help="Key of the MACs; give also those of before.",
)
@click.option("--chain-only", is_flag=True, help="Be content with the hashes; no key is needed.")
@click.option(
    "--anchor-file",
    type=click.Path(path_type=Path),
    envvar="ICR_PROXY_AUDIT__ANCHOR_FILE",
    metavar="FILE",
    help="What `audit.anchor_file` wrote, from where nobody could have changed it.",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="SEQ:HASH",
    help="A record that is known to have been there, as `audit.head` in the log tells.",
)
@click.option(
    "--head-metric",
    "numbers",
    multiple=True,
    metavar="SEQ:NUMBER",
    help="The same from the metrics audit_head and audit_head_hash, of one scrape.",
)
@click.option(
    "--accept-rewound",
    "accepted",
    multiple=True,
    metavar="SEQ:HASH",
    help="A `rewound` record that you know of, and why: it is no finding then.",
)
@click.option("--partial", is_flag=True, help="The oldest files are elsewhere; begin with these.")
@click.option("--json", "as_json", is_flag=True, help="Tell a machine.")
def verify(paths: tuple[Path, ...], *, chain_only: bool, as_json: bool, **options: Any) -> None:
    """Say whether a trail is as it was written.

    Exits with 0 if it is, also after crashes; 2 if it was tampered with (with what and where:
    changed, removed, reordered, inserted, repeated, cut, forged, rewound), 1 if that could not be
    checked, as with the key of another trail.
    """
    from icr_proxy.audit_tools import verification  # noqa: PLC0415
    from icr_proxy.redaction import printable  # noqa: PLC0415

    try:
        keys = verification.read_keys(options["key_files"])
        witnesses = [_witness(text, base=16) for text in options["heads"]]
        witnesses += [_witness(text, base=10) for text in options["numbers"]]
        accepted = [_witness(text, base=16) for text in options["accepted"]]
        if options["anchor_file"] is not None:
            witnesses += verification.read_anchor(options["anchor_file"])
        files = verification.find_files(paths, may_be_none=bool(witnesses))
        total = sum(path.stat().st_size for path in files)
        with _progress(total) as done:
            verdict = verification.verify(
                paths,
                keys=keys,
                witnesses=witnesses,
                is_partial=options["partial"],
                accepted=accepted,
                on_progress=done,
            )
    except (verification.UncheckableError, OSError) as error:
        click.echo(printable(f"NOT CHECKED: {error}", instead="\ufffd"), err=True)
        sys.exit(FAILED)
    if as_json:
        click.echo(json.dumps(verification.as_json(verdict, chain_only=chain_only), indent=2))
    else:
        for line in verification.report_verdict(verdict, chain_only=chain_only):
            click.echo(line)
    sys.exit(verification.exit_code(verdict, chain_only=chain_only))


def _witness(text: str, *, base: int) -> WitnessedRecord:
    from icr_proxy.audit_tools.findings import WitnessedRecord  # noqa: PLC0415

    seq, _, known = text.partition(":")
    try:
        if base == 10:  # noqa: PLR2004
            prefix = f"{int(float(known)):0{LEAST_PREFIX}x}"
        else:
            int(known, 16)
            prefix = known.lower()
        number = int(seq)
    except (ValueError, OverflowError):  # the latter of an infinite number
        prefix, number = "", 0
    if len(prefix) < LEAST_PREFIX or number < 1:
        raise click.UsageError(
            f"{text!r} is no head; write the number of a record, a colon and its hash"
            f" ({LEAST_PREFIX} hex digits or more) or, after --head-metric, the metric's value"
        )
    return WitnessedRecord(number, prefix, f"the head {text}")


def _progress(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show a bar if somebody is watching."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _size: None)
    bar = click.progressbar(length=total, label="Verifying", file=sys.stderr)
    return _Bar(bar)


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __enter__(self) -> Callable[[int], None]:
        update: Callable[[int], None] = self._bar.__enter__().update
        return update

    def __exit__(self, *raised: object) -> None:
        self._bar.__exit__(*raised)


@audit.command(
    cls=Command,
    epilog="""
    icr-proxy audit accept DIR --anchor-file icr.anchor --key-file audit.key --reason "disk died"
    """,
)
@click.argument(
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="ICR_PROXY_AUDIT__DIRECTORY",
)
@click.option(
    "--anchor-file",
    type=click.Path(path_type=Path),
    envvar="ICR_PROXY_AUDIT__ANCHOR_FILE",
    required=True,
    metavar="FILE",
    help="`audit.anchor_file` of the proxy.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    envvar="ICR_PROXY_AUDIT__KEY_FILE",
    metavar="FILE",
    help="`audit.key_file` of the proxy, if it has one.",
)
@click.option("--reason", required=True, metavar="TEXT", help="What happened; it is recorded.")
def accept(directory: Path, *, anchor_file: Path, key_file: Path | None, reason: str) -> None:
    """Let the proxy start again with a trail that ends before what its anchor knows.

    Use it after a backup was restored, as the user that the proxy runs as. It writes a `rewound`
    record with your reason; `audit verify` reports that record. Exits with 0, or 2 if the trail
    cannot be used.
    """
    from icr_proxy.audit.acceptance import accept_rewind  # noqa: PLC0415

    if not reason.strip() or not reason.isprintable():
        raise click.UsageError("--reason needs a sentence on one line")
    accepted = accept_rewind(
        directory, anchor_file=anchor_file, key_file=key_file, reason=reason.strip(), now=_now
    )
    if accepted is None:
        click.echo("Nothing to accept: the trail and its anchor agree.")
        return
    click.echo(f"Accepted: {accepted.detail}. Record {accepted.seq} tells why.")
    click.echo(f"For the auditor: --accept-rewound {accepted.seq}:{accepted.hash[:LEAST_PREFIX]}")


def _now() -> float:
    return time.time()  # noqa: TID251 - of a command, not of the program that serves


@audit.command(cls=Command, epilog="icr-proxy audit tail /var/lib/icr-proxy/audit -n 50")
@click.argument(
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="ICR_PROXY_AUDIT__DIRECTORY",
)
@click.option("-n", "--lines", default=10, show_default=True, help="Begin with so many.")
@click.option("--no-follow", is_flag=True, help="Show these and end.")
@click.option("--json", "as_json", is_flag=True, help="Show records as they are.")
def tail(directory: Path, *, lines: int, no_follow: bool, as_json: bool) -> None:
    """Show the newest records, and further ones as they come, across the change of files."""
    from icr_proxy.audit_tools.query import Tail, format_record  # noqa: PLC0415

    colours = sys.stdout.isatty()

    def echo(record: dict[str, Any]) -> None:
        click.echo(json.dumps(record) if as_json else format_record(record, colours=colours))

    try:
        with closing(Tail(directory)) as following:
            for record in following.start(lines):
                echo(record)
            while not no_follow:
                sys.stdout.flush()
                time.sleep(POLL_SECONDS)
                for record in following.read():
                    echo(record)
    except OSError as exc:
        name = exc.filename or directory
        raise click.ClickException(f"{name} cannot be read: {exc.strerror}") from None

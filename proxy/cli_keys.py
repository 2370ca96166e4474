"""Commands for key files."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli_options import Command
from proxy.errors import KeyUnusableError

ABOUT_FORM = """\
The registry shows a SHA-256 fingerprint (documented); of which bytes and in which form is not
documented. This is GitHub's way, whose model the registry follows: over the public key's DER
(SubjectPublicKeyInfo). An inference: a difference does not prove that the key is another one."""


@click.group()
def keys() -> None:
    """Make a key pair, or a key for a caller; show the fingerprint of a key."""


@keys.command(
    cls=Command,
    epilog="""
    icr-proxy keys generate --out app.pem --public-out app.pub.pem
    icr-proxy keys generate --bits 4096 --force
    """,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="icr_private_key.pem",
    show_default=True,
    metavar="FILE",
    help="Where the private key goes (PKCS#8); only you can read it.",
)
@click.option(
    "--public-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the public key goes.",
)
@click.option(
    "--bits",
    type=click.Choice(["2048", "3072", "4096"]),
    default="2048",
    show_default=True,
    help="Length; a longer key makes mints slower, not safer in practice.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def generate(out: Path, public_out: Path | None, bits: str, *, force: bool) -> None:
    """Make an RSA key pair and print its fingerprint.

    The registry makes the keys of its apps itself and offers them for download; it is not
    documented to take public keys. This is for emulators, tests and rehearsals of a rotation.
    """
    from proxy import keyfiles  # noqa: PLC0415

    wanted = [path for path in (out, public_out) if path is not None]
    if len(set(wanted)) < len(wanted):
        raise click.UsageError("--out and --public-out name the same file")
    if not force:
        for path in wanted:
            if path.exists() or path.is_symlink():
                raise click.UsageError(f"{path} is there already; --force replaces it")
    pair = keyfiles.new_pair(int(bits))
    try:
        keyfiles.write_key(out, pair.private, mode=keyfiles.PRIVATE_MODE, replace=force)
        if public_out is not None:
            keyfiles.write_key(public_out, pair.public, mode=keyfiles.PUBLIC_MODE, replace=force)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}"
        ) from None
    click.echo(keyfiles.parse_facts(pair.public.decode(), source="the new key").fingerprint)
    click.echo(f"Private key: {out} (keep it secret)", err=True)
    if public_out is not None:
        click.echo(f"Public key:  {public_out}", err=True)


@keys.command(
    cls=Command,
    epilog="""
    icr-proxy keys fingerprint app.pem
    openssl rsa -in app.pem -pubout -outform DER | openssl sha256 -binary | openssl base64
    """,
)
@click.argument("file", type=click.Path(path_type=Path))
def fingerprint(file: Path) -> None:
    """Print the fingerprint of a key, private or public (PEM), in both usual forms.

    The first line is the form that icr-proxy shows everywhere. Exits with 0, or 1 if there is no
    RSA key in the file.
    """
    from proxy import keyfiles  # noqa: PLC0415

    try:
        facts = keyfiles.read_facts(file)
    except KeyUnusableError as error:
        raise click.ClickException(error.detail) from None
    click.echo(facts.fingerprint)
    click.echo(facts.hexadecimal)
    click.echo(f"\n{file}: {facts.kind} RSA key, {facts.bits} bits, {facts.encoding}.", err=True)
    click.echo(ABOUT_FORM, err=True)


@keys.command(
    cls=Command,
    epilog="""
    icr-proxy keys caller --name reporting
    icr-proxy keys caller --name reporting > reporting.key
    """,
)
@click.option("--name", default="caller", show_default=True, help="What log and rules call it.")
def caller(name: str) -> None:
    """Make a key for a caller, and the lines of the configuration that let it in.

    The key is printed on standard output, once: give it to the caller, who sends it as
    `Authorization: Bearer KEY`. The lines, on standard error, have only its hash.
    """
    from proxy import callerkeys  # noqa: PLC0415
    from proxy.vocabulary import CALLER_NAME  # noqa: PLC0415

    try:
        CALLER_NAME.read(name)
    except ValueError as error:
        raise click.UsageError(f"--name {error}") from None
    key = callerkeys.new_key()
    click.echo(key)
    click.echo("\nThis is shown once. What the proxy needs of it:\n", err=True)
    click.echo(f"callers:\n  - name: {name}\n    keys:", err=True)
    click.echo(f"      - {callerkeys.hash_of(key)}", err=True)

"""Commands for key files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icr_proxy.cli.options import Command
from icr_proxy.errors import KeyUnusableError
from icr_proxy.files import PRIVATE_MODE, PUBLIC_MODE, write_file

if TYPE_CHECKING:
    from icr_proxy.credentials.key_tools import LocalCertificates

ABOUT_FORM = """\
The registry shows a SHA-256 fingerprint (documented); of which bytes and in which form is not
documented. This is GitHub's way, whose model the registry follows: over the public key's DER
(SubjectPublicKeyInfo). An inference: a difference does not prove that the key is another one."""

NEXT = """
1. Keep {folder}/ca.key to yourself; the proxy does not need it.

2. Let the proxy serve the certificate:

   listeners:
     - bind: 127.0.0.1:8443
       tls:
         cert: {folder}/tls.crt
         key: {folder}/tls.key

3. Let the tool trust {folder}/ca.crt, in its own way or the system's:

   curl      --cacert {folder}/ca.crt
   Python    REQUESTS_CA_BUNDLE={folder}/ca.crt (requests), SSL_CERT_FILE=... (httpx, urllib)
   Node.js   NODE_EXTRA_CA_CERTS={folder}/ca.crt
   Java      keytool -importcert -cacerts -alias icr-proxy -file {folder}/ca.crt
   Debian    cp {folder}/ca.crt /usr/local/share/ca-certificates/icr-proxy.crt
             update-ca-certificates

4. If the tool's address cannot be changed, see docs/connect.md.
"""


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
    from icr_proxy.credentials import key_tools  # noqa: PLC0415

    wanted = [path for path in (out, public_out) if path is not None]
    if len(set(wanted)) < len(wanted):
        raise click.UsageError("--out and --public-out name the same file")
    if not force:
        for path in wanted:
            if path.exists() or path.is_symlink():
                raise click.UsageError(f"{path} is there already; --force replaces it")
    pair = key_tools.generate_key_pair(int(bits))
    try:
        write_file(out, pair.private, mode=PRIVATE_MODE, replace=force)
        if public_out is not None:
            write_file(public_out, pair.public, mode=PUBLIC_MODE, replace=force)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}"
        ) from None
    click.echo(key_tools.parse_key_facts(pair.public.decode(), source="the new key").fingerprint)
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
    from icr_proxy.credentials import key_tools  # noqa: PLC0415

    try:
        facts = key_tools.read_key_facts(file)
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
    from icr_proxy.config.fields import CALLER_NAME  # noqa: PLC0415
    from icr_proxy.policy import caller_auth  # noqa: PLC0415

    try:
        CALLER_NAME.read(name)
    except ValueError as error:
        raise click.UsageError(f"--name {error}") from None
    key = caller_auth.new_key()
    click.echo(key)
    click.echo("\nThis is shown once. What the proxy needs of it:\n", err=True)
    click.echo(f"callers:\n  - name: {name}\n    keys:", err=True)
    click.echo(f"      - {caller_auth.hash_of(key)}", err=True)


@keys.command(
    cls=Command,
    epilog="""
    icr-proxy keys tls --for api.carbonregistry.com --out /etc/icr-proxy/tls
    icr-proxy keys tls --for localhost --for 127.0.0.1
    """,
)
@click.option(
    "--for",
    "names",
    multiple=True,
    required=True,
    metavar="HOST",
    help="Name or IP address by which tools reach the listener; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="tls",
    show_default=True,
    metavar="DIR",
    help="Folder for the files.",
)
def tls(names: tuple[str, ...], out: Path) -> None:
    """Make a certificate authority of your own, and a certificate of it for a listener.

    For tools that insist on https, or on an address that cannot be changed. Run again, it keeps
    the authority, which tools trust by then, and renews the certificate; a running proxy picks it
    up. The authority can vouch for these names only. Exits with 0, or 1 with the reason.
    """
    from icr_proxy.clock import SYSTEM_CLOCKS  # noqa: PLC0415
    from icr_proxy.credentials import key_tools  # noqa: PLC0415

    try:
        made = key_tools.make_certificates(
            out, names, now=datetime.fromtimestamp(SYSTEM_CLOCKS.now(), UTC)
        )
    except ValueError as error:
        raise click.UsageError(f"--for {', '.join(names)}: one of them {error}") from None
    except KeyUnusableError as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}"
        ) from None
    _say_what_to_do(made, names)


def _say_what_to_do(made: LocalCertificates, names: tuple[str, ...]) -> None:
    folder = made.ca.parent.resolve()
    click.echo(f"{'New' if made.is_new_ca else 'The old'} authority: {made.ca}")
    click.echo(
        f"New certificate: {made.cert}, for {', '.join(names)}, until {made.expires_at:%Y-%m-%d};"
        " run this again before that"
    )
    if made.is_new_ca:
        click.echo(NEXT.format(folder=folder), nl=False)

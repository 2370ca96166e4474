"""The manual page, made of what the commands say of themselves; `make docs` writes it.

In the language of man(7). `test_documents` compares the file with what this gives.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icr_proxy.cli.main import commands

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "icr-proxy.1"
HEAD = r""".\" Written by `make docs` from the commands' own help.
.TH ICR-PROXY 1 "" "icr-proxy" "User Commands"
.SH NAME
icr-proxy \- authenticating reverse proxy in front of the ICR carbon-registry API
.SH SYNOPSIS
.B icr-proxy
.I COMMAND
[\fIOPTIONS\fR]
.SH DESCRIPTION"""
TAIL = r""".SH ENVIRONMENT
Every key of the configuration is also a variable: \fBICR_PROXY_\fR and the path of the key in upper
case with two underscores between its parts, as in \fBICR_PROXY_UPSTREAM__BASE_URL\fR. A flag wins
over a variable, a variable over the file. \fBicr-proxy check \-\-schema\fR describes all keys.
.SH SIGNALS
.TP
.B SIGTERM, SIGINT
Drain and end; a second one ends at once. Before the proxy is ready, end with 0.
.TP
.B SIGHUP
Read the configuration anew.
.SH EXIT STATUS
0 all is well; 1 it failed; 2 usage or configuration; 143 ended by a second signal.
\fBicr-proxy audit verify\fR: 0 clean, 2 tampered, 1 cannot say."""


def manual() -> str:
    """Give the page."""
    lines = [HEAD, *_paragraphs(commands.help or ""), ".SH COMMANDS"]
    for name, command in _leaves(commands):
        lines += _command(name, command)
    return "\n".join([*lines, TAIL]) + "\n"


def _leaves(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{prefix}{name} ")
        elif command is not None:
            yield prefix + name, command


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield f".SS {_plain(name)}"
    yield from _paragraphs(command.help or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield ".TP"
            yield (
                rf"\fB{_plain(', '.join((*parameter.opts, *parameter.secondary_opts)))}\fR"
                + _argument(parameter)
            )
            yield _plain(parameter.help or "")
    if command.epilog:
        yield from (".PP", ".EX", *map(_plain, map(str.strip, command.epilog.strip().splitlines())))
        yield ".EE"


def _argument(option: click.Option) -> str:
    if option.is_flag:
        return ""
    context = click.Context(commands)
    return rf" \fI{_plain(option.make_metavar(context))}\fR"


def _paragraphs(text: str) -> Iterator[str]:
    for at, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if at:
            yield ".PP"
        yield _plain(" ".join(paragraph.split()))


def _plain(text: str) -> str:
    r"""Escape what troff would obey: `\`, `-` as a hyphen, a dot or quote at the start."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped

"""What commands share: how they are configured, how they show examples, how they exit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.config.models import Config

FAILED, USAGE = 1, 2

# Everyday settings that are flags too: flag, key of the configuration, what it is.
FLAGS = (
    ("--listen", "listeners.0.bind", "HOST:PORT", "Where callers connect."),
    ("--admin", "admin.bind", "HOST:PORT", "Where health, metrics and status are."),
    ("--upstream", "upstream.base_url", "URL", "Where the API is."),
    ("--app-id", "app.id", "ID", "The App ID."),
    ("--private-key-file", "app.private_key_file", "FILE", "The app's private key, PEM."),
    ("--log-level", "logs.level", "LEVEL", "debug, info, warning or error."),
    ("--log-format", "logs.format", "FORMAT", "auto, json or console."),
)


class Command(click.Command):
    """A command whose examples keep their lines."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand."""
        del ctx
        if self.epilog:
            formatter.write("\nExamples:\n\n")
            for line in self.epilog.strip().splitlines():
                formatter.write(f"  {line.strip()}\n" if line.strip() else "\n")


def settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how the proxy is configured."""
    command = click.option(
        "--read-only", is_flag=True, help="Refuse every operation that changes state."
    )(command)
    for flag, _, metavar, meaning in reversed(FLAGS):
        command = click.option(flag, metavar=metavar, help=meaning)(command)
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        envvar="ICR_PROXY_CONFIG",
        metavar="FILE",
        help="Configuration file (YAML); also ICR_PROXY_CONFIG.",
    )(command)


def loader(file: Path | None, options: dict[str, Any]) -> Callable[[], Config]:
    """Give what loads the configuration, now and at every reload."""
    from icr_proxy.config.loader import load  # noqa: PLC0415

    flags = {
        key: options[flag.lstrip("-").replace("-", "_")]
        for flag, key, _, _ in FLAGS
        if options[flag.lstrip("-").replace("-", "_")] is not None
    }
    if options["read_only"]:
        flags["policy.read_only"] = "true"
    return lambda: load(file=file, environ=os.environ, flags=flags)

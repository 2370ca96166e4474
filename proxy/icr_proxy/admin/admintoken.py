"""The admin token: made anew at each start, and written where only its owner can read it.

A token in a log would be kept, shipped and searched; so it goes into a file and nowhere else.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.files import check_replaceable, read_bytes
from icr_proxy.redaction import Secret

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_BYTES = 32


class AdminToken:
    """The token of this run, if the configuration names a file for it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._token: Secret | None = None

    def __call__(self) -> Secret | None:
        """Give the token; `None` if there is none."""
        return self._token

    def issue(self) -> None:
        """Make it, and put it into its file in one step.

        Raises:
            StartError: the file cannot be written.
        """
        if self._path is None:
            return
        self._token = Secret(secrets.token_urlsafe(TOKEN_BYTES))
        self._put(self._path, self._token.reveal() + "\n")

    def try_to_issue(self) -> None:
        """Find out whether `issue` would work; the file stays as it is.

        Raises:
            StartError: it would not.
        """
        if self._path is not None:
            self._put(self._path, None)

    def _put(self, path: Path, text: str | None) -> None:
        """Replace the file in one step, or with `None` do all of it but the last step."""
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            check_replaceable(path)
            # Never readable by others, not even for the moment between making and closing it.
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text or "")
                if text is not None:
                    fresh.replace(path)
            finally:
                with suppress(OSError):
                    fresh.unlink()
        except OSError as exc:
            raise StartError(
                f"admin.token_file: {path} cannot be written: {exc.strerror};"
                " name a file in a directory that the proxy may write to"
            ) from None

    def withdraw(self) -> None:
        """Take the file away, unless another proxy has put its own there.

        The token stays in force until the port is closed.
        """
        if self._path is None or self._token is None:
            return
        ours = self._token.reveal().encode() + b"\n"
        with suppress(OSError, ValueError):  # it may be anything by now, also a pipe
            if read_bytes(self._path, limit=len(ours)) == ours:
                self._path.unlink()

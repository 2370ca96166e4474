"""File permissions: finds files with keys and secrets that other users can read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from icr_proxy.config.spec import Path, dotted, parts
from icr_proxy.config.value_types import SecretPath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path as FilePath

    from icr_proxy.config.models import Config

KUBERNETES_LINK = "..data"  # the kubelet makes it in every volume of a Secret


class ExposedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file with a secret that other users can read."""

    key: str
    path: FilePath
    mode: int
    readers: str

    @property
    def octal_mode(self) -> str:
        """The permissions in octal digits."""
        return f"{self.mode:04o}"

    def __str__(self) -> str:
        return (
            f"{self.key}: {self.path} can be read by {self.readers} (mode {self.octal_mode});"
            f" chmod {self.mode & ~0o077:04o} {self.path}"
        )


def exposed_secrets(config: Config) -> Iterator[ExposedFile]:
    """Find the files with secrets that other users can read.

    Other users are everybody, or a group without the proxy. A group with the proxy may be what lets
    the proxy itself read the file (`root:icr-proxy 0640`, Kubernetes with `fsGroup`). Volumes of
    Kubernetes are skipped: only containers that mount one see it.
    """
    for key, path in _secret_paths(config, ()):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if not file.name.startswith(".") and not (file.parent / KUBERNETES_LINK).is_symlink():
                yield from _check_file(key, file)


def _secret_paths(section: Any, path: Path) -> Iterator[tuple[str, FilePath]]:
    for part in parts(type(section)).values():
        here, value = (*path, part.name), getattr(section, part.name)
        if value is None:
            continue
        if part.key:
            if isinstance(part.key.kind, SecretPath):
                yield dotted(here), value
        elif part.many:
            for at, each in enumerate(value):
                yield from _secret_paths(each, (*here, str(at)))
        else:
            yield from _secret_paths(value, here)


def _check_file(key: str, file: FilePath) -> Iterator[ExposedFile]:
    try:
        found = file.stat()
    except OSError:
        return  # the code that reads it reports why
    if not stat.S_ISREG(found.st_mode):
        return
    if found.st_mode & stat.S_IROTH:
        readers = "every user of this machine"
    elif found.st_mode & stat.S_IRGRP and found.st_gid not in {os.getegid(), *os.getgroups()}:
        readers = f"the group {found.st_gid}, which the proxy is not in"
    else:
        return
    yield ExposedFile(key=key, path=file, mode=stat.S_IMODE(found.st_mode), readers=readers)

"""Verifies the files of a trail on disk, several at a time if there is much of it."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from icr_proxy.audit.anchor import read_history
from icr_proxy.audit.key import read_audit_key
from icr_proxy.audit.segments import is_in_use, list_segments
from icr_proxy.audit_tools.checks import judge
from icr_proxy.audit_tools.examining import examine
from icr_proxy.audit_tools.findings import Witnessed
from icr_proxy.audit_tools.set_aside import compare_aside
from icr_proxy.errors import StartError
from icr_proxy.files import open_to_read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from icr_proxy.audit_tools.findings import Checked, Verdict

WORTH_PROCESSES = 32 << 20  # bytes; below, starting them takes longer than they save


class UncheckableError(Exception):
    """There is nothing to verify, or it cannot be read."""


def find_files(paths: Sequence[Path], *, may_be_none: bool = False) -> list[Path]:
    """List the files that are meant by files and directories.

    Raises:
        UncheckableError: there are none, and there have to be some.
    """
    found: list[Path] = []
    for path in paths:
        try:
            found += list_segments(path) if path.is_dir() else [path]
        except OSError as exc:
            raise UncheckableError(f"{path} cannot be read: {exc.strerror}") from None
    if not (found or may_be_none):
        shown = ", ".join(map(str, paths))
        raise UncheckableError(f"there is no audit trail in {shown}")
    return found


def read_keys(paths: Sequence[Path]) -> dict[str, bytes]:
    """Read MAC keys, by fingerprint.

    Raises:
        UncheckableError: one cannot be read.
    """
    keys = {}
    for path in paths:
        try:
            secret = read_audit_key(path, key="--key-file")
        except StartError as error:
            raise UncheckableError(error.detail) from None
        keys[secret.fingerprint] = secret.reveal().encode()
    return keys


def read_anchor(path: Path) -> list[Witnessed]:
    """Read what an anchor file knows: every head since the last that was accepted as rewound.

    Raises:
        UncheckableError: it knows nothing.
    """
    try:
        path.lstat()
        history = read_history(path)
    except OSError as exc:
        raise UncheckableError(f"{path} cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise UncheckableError(f"{path} {exc}") from None
    if not history.heads:
        raise UncheckableError(f"{path} is not an anchor of an audit trail")
    return [Witnessed(known.seq, known.hash, str(path), known.trail) for known in history.heads]


def verify(
    paths: Sequence[Path],
    *,
    keys: Mapping[str, bytes],
    witnesses: Sequence[Witnessed] = (),
    is_partial: bool = False,
    accepted: Sequence[Witnessed] = (),
    done: Callable[[int], None] = lambda _size: None,
) -> Verdict:
    """Verify all files; `done` hears how many bytes more have been looked at.

    Raises:
        UncheckableError: there is nothing to verify, or it cannot be read.
    """
    # Asked before and after: a process that starts or ends meanwhile leaves half a record, too.
    directories = [path for path in paths if path.is_dir()]
    is_live = any(map(is_in_use, directories))
    # Where an anchor or a head is given, a directory without files is a trail that was removed.
    files = find_files(paths, may_be_none=bool(witnesses))
    wanted = frozenset(witness.seq for witness in witnesses)
    try:
        checked = _examine_all(files, keys=keys, wanted=wanted, done=done)
    except OSError as exc:
        raise UncheckableError(f"{exc.filename} cannot be read: {exc.strerror}") from None
    return judge(
        checked,
        keys=keys.keys(),
        witnesses=witnesses,
        is_live=is_live or any(map(is_in_use, directories)),
        is_partial=is_partial,
        accepted=accepted,
        aside=compare_aside(checked, places={path.parent for path in files}),
    )


def _examine_all(
    files: Sequence[Path],
    *,
    keys: Mapping[str, bytes],
    wanted: frozenset[int],
    done: Callable[[int], None],
) -> list[Checked]:
    workers = min(len(files), os.cpu_count() or 1)
    if workers <= 1 or sum(path.stat().st_size for path in files) < WORTH_PROCESSES:
        checked = []
        for path in files:
            checked.append(_examine_file(path, keys, wanted))
            done(checked[-1].size)
        return checked
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(_examine_file, path, keys, wanted) for path in files]
        for task in as_completed(tasks):
            done(task.result().size)
        return [task.result() for task in tasks]


def _examine_file(path: Path, keys: Mapping[str, bytes], wanted: frozenset[int]) -> Checked:
    try:
        with open_to_read(path) as file:
            return examine(path.name, file, keys=keys, wanted=wanted)
    except OSError as exc:  # of reading, which names no file
        raise OSError(exc.errno, exc.strerror, str(path)) from None

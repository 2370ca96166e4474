"""Accepts a trail that contradicts its anchor, and records that an operator did so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.audit.anchor import AnchorFile
from icr_proxy.audit.chain import read_audit_key
from icr_proxy.audit.recovery import find_end
from icr_proxy.audit.writer import TrailWriter
from icr_proxy.config.models import AuditConfig
from icr_proxy.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class AcceptedRewind(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted, and the place of its record."""

    detail: str
    seq: int
    hash: str


def accept_rewind(
    directory: Path,
    *,
    anchor_file: Path,
    key_file: Path | None,
    reason: str,
    now: Callable[[], float],
) -> AcceptedRewind | None:
    """Record that the trail goes on from where it ends; `None` if there is nothing to accept.

    Raises:
        StartError: the trail, its key or its anchor cannot be used, or a proxy is writing.
    """
    key = read_audit_key(key_file, key="--key-file") if key_file is not None else None
    owner = directory.stat().st_uid
    if owner != os.geteuid():  # or the proxy could not read what is written here
        raise StartError(
            f"audit.directory: {directory} belongs to user {owner}; run this as that user, as whom"
            " the proxy runs"
        )
    sealed_with = find_end(directory).key
    if key is None and sealed_with is not None:
        raise StartError(
            f"audit.directory: the trail in {directory} is sealed with key {sealed_with}; name the"
            " key file of the proxy with --key-file"
        )
    config = AuditConfig(directory=directory, anchor_file=anchor_file, key_file=key_file)
    writer = TrailWriter(directory, config=config, key=key, now=now, reason=reason)
    try:
        if writer.rewind is None:
            return None
        writer.append((), sync=True)
        recorded = writer.head
    except OSError as exc:
        raise StartError(
            f"audit.directory: {directory} cannot be written: {exc.strerror}"
        ) from None
    finally:
        writer.close()
    try:
        AnchorFile(anchor_file).publish(
            writer.head, file=writer.segment, trail=writer.trail, now=now(), rewound=True
        )
    except OSError as exc:
        raise StartError(
            f"audit.anchor_file: {anchor_file} cannot be written: {exc.strerror}; the trail has the"
            " record, but the proxy does not start before the anchor has it, too: run this again"
        ) from None
    return AcceptedRewind(detail=writer.rewind.detail, seq=recorded.seq, hash=recorded.hash)

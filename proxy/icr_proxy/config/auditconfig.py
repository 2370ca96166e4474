"""The audit trail, as configured.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.spec import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Who did what, in files that show if they were touched."""

    must_hold: ClassVar = tuple(
        Rule((key, "directory"), rules.switched_on)
        for key in ("key_file", "keep", "keep_days", "anchor_file")
    )

    directory: Annotated[
        Path | None,
        Key(
            of.DIRECTORY,
            "Where the trail is kept; empty is no trail.",
            example="/var/lib/icr-proxy/audit",
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        Key(
            of.SECRET_FILE,
            "File with the key of the MACs; empty is a chain of hashes alone.",
            example="/etc/icr-proxy/audit.key",
        ),
    ] = None
    fsync: Annotated[
        Literal["always", "interval", "never"],
        Key(of.FSYNC, "When records are forced to the disk; always: before a change is sent."),
    ] = "always"
    fsync_interval: Annotated[
        float, Key(of.DURATION, "How often, if `fsync` is `interval`.", example="1s")
    ] = 1.0
    on_failure: Annotated[
        Literal["refuse", "continue"],
        Key(
            of.REFUSE_OR_CONTINUE,
            "What happens while records cannot be written: refuse requests, or count what is lost."
            " At a start, if the end of the trail is missing: refuse to start, or record that.",
        ),
    ] = "refuse"
    max_wait: Annotated[
        float, Key(of.DURATION, "How long a request waits for its record.", example="1s")
    ] = 1.0
    queue: Annotated[int, Key(of.QUEUE, "Records held in memory until they are written.")] = 10_000
    body_digests: Annotated[bool, Key(of.SWITCH, "Record the SHA-256 of both bodies.")] = False
    redact_query: Annotated[
        tuple[str, ...],
        Key(of.PARAMETERS, "Query parameters whose values are recorded as `***`."),
    ] = ()
    segment_size: Annotated[int, Key(of.SEGMENT, "Begin a new file at this size.")] = 64 << 20
    segment_age: Annotated[
        float, Key(of.DURATION, "Begin a new file at this age.", example="24h")
    ] = 86_400.0
    keep: Annotated[int | None, Key(of.COUNT, "Files to keep; empty is all.", example="1000")] = (
        None
    )
    keep_days: Annotated[
        int | None, Key(of.DAYS, "Days to keep a file for; empty is for ever.", example="3650")
    ] = None
    anchor_file: Annotated[
        Path | None,
        Key(
            of.FILE,
            "File that gets sequence number and hash of the newest record; a start compares the"
            " trail with it. Best kept elsewhere.",
            example="/mnt/elsewhere/icr-proxy.anchor",
        ),
    ] = None
    head_interval: Annotated[
        float, Key(of.DURATION, "How often these are logged and written there.", example="1m")
    ] = 60.0

    def __post_init__(self) -> None:
        check(self)

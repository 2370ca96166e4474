"""The records of the audit trail: one class for each kind, one line for each field.

The table in `docs/audit.md` is made from these lines, so annotations are real objects here. Fields
that are not known, or do not apply, are left out of a record. Times are text, so that a person can
read the file.
"""

from typing import Annotated, Any

import msgspec

from icr_proxy.clock import milliseconds, stamp
from icr_proxy.observability.outcome import Journal, Outcome, printable
from icr_proxy.query_redaction import QueryRedaction

# Stands where a field of a request's record must be given though it follows some that need not be.
# Such an order needs defaults, unless fields go by name, and that costs five times as much.
ALWAYS: Any = object()


def _is(meaning: str) -> msgspec.Meta:
    return msgspec.Meta(description=meaning)


class Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", gc=False):
    """What every record has. None can be part of a ring, so the collector need not look at them."""

    time: Annotated[str, _is("When it was recorded, UTC, by the proxy's clock.")]


class RequestFacts(Record, frozen=True):
    """What is known of a request before it is sent."""

    request_id: Annotated[str, _is("`X-Request-Id`, as in the log, at the API and in refusals.")]
    trace_id: Annotated[str, _is("Trace id of `traceparent`.")]
    listener: Annotated[str, _is("The listener, by its `bind`.")]
    peer: Annotated[str, _is("Address of whoever is connected.")]
    caller: Annotated[str | None, _is("Who it is, if callers are authenticated.")] = None
    method: Annotated[str, _is("HTTP method.")] = ALWAYS
    path: Annotated[str, _is("Path as sent to the API.")] = ""
    query: Annotated[str | None, _is("Query as sent, less what `audit.redact_query` hides.")] = None
    operation: Annotated[str, _is("Name of the API operation, `unknown` if it has none.")] = ALWAYS
    changes_state: Annotated[
        bool, _is("Whether it may change anything: not GET, HEAD, OPTIONS.")
    ] = ALWAYS
    rule: Annotated[str | None, _is("Rule that decided: its name, `read-only`, `default`.")] = None
    installation: Annotated[str | None, _is("Installation whose token it got.")] = None
    organization: Annotated[str | None, _is("Organization of that token.")] = None
    token: Annotated[str | None, _is("First 12 hex digits of the token's SHA-256.")] = None
    token_generation: Annotated[int | None, _is("How many tokens came before it, and one.")] = None


class IntentRecord(RequestFacts, frozen=True, tag="intent"):
    """A request that changes state is about to be sent to the API."""


class RequestRecord(RequestFacts, frozen=True, tag="request"):
    """A request has ended."""

    decision: Annotated[str | None, _is("`allowed`, `denied`, or `reported`: only told.")] = None
    status: Annotated[int, _is("Status of the answer; 499 if the caller left before.")] = ALWAYS
    origin: Annotated[str, _is("Who answered: `upstream`, the API, or `proxy`.")] = ALWAYS
    code: Annotated[str | None, _is("Code of the refusal or of what broke off.")] = None
    duplicate_of: Annotated[str | None, _is("Id of the request that it seems to repeat.")] = None
    attempts: Annotated[int, _is("How often it was sent to the API; 0 is never.")] = ALWAYS
    bytes_in: Annotated[int, _is("Bytes of the request body received.")] = ALWAYS
    bytes_out: Annotated[int, _is("Bytes of the answer's body written to the caller.")] = ALWAYS
    duration_ms: Annotated[float, _is("From the head of the request to the last byte.")] = ALWAYS
    token_wait_ms: Annotated[float, _is("Part of that: waiting for a token.")] = ALWAYS
    first_byte_ms: Annotated[float | None, _is("The API's time to the head of its answer.")] = None
    sha256_in: Annotated[
        str | None, _is("SHA-256 of the request body received, if `audit.body_digests`.")
    ] = None
    sha256_out: Annotated[
        str | None, _is("SHA-256 of the answer's body as written, if `audit.body_digests`.")
    ] = None
    intent: Annotated[int | None, _is("Sequence number of its `intent`, if it has one.")] = None


class SegmentRecord(Record, frozen=True, kw_only=True, tag="segment"):
    """A file of the trail begins; `prev` is the hash of the last record of the file before."""

    format: Annotated[int, _is("Version of this format.")]
    trail: Annotated[str | None, _is("Random ID of the trail, in all of its files.")] = None
    previous: Annotated[str | None, _is("Name of the file before.")] = None
    key: Annotated[str | None, _is("Fingerprint of the MAC key; none: hashes only.")] = None
    pid: Annotated[int, _is("Process that writes it.")]
    host: Annotated[str, _is("Machine that it runs on.")]


class EndRecord(Record, frozen=True, kw_only=True, tag="end"):
    """A file of the trail ends; nothing may follow in it."""

    records: Annotated[int, _is("Records in the file, this one included.")]


class StartRecord(Record, frozen=True, kw_only=True, tag="start"):
    """The proxy starts."""

    version: Annotated[str, _is("Version of the proxy.")]
    config: Annotated[str, _is("SHA-256 of the configuration, without secrets.")]


class StopRecord(Record, frozen=True, kw_only=True, tag="stop"):
    """The proxy stops as it should."""


class ReloadRecord(Record, frozen=True, kw_only=True, tag="reload"):
    """The configuration was loaded anew."""

    config: Annotated[str, _is("SHA-256 of what is in force, without secrets.")]
    restart_needed_for: Annotated[
        tuple[str, ...], _is("Keys that changed and wait for a restart.")
    ] = ()


class KeyRecord(Record, frozen=True, kw_only=True, tag="key"):
    """The standing of the app's private keys has changed."""

    states: Annotated[dict[str, str], _is("State by fingerprint: active, standby, refused.")]


class SwitchRecord(Record, frozen=True, kw_only=True, tag="switch"):
    """Somebody threw a switch on the admin port."""

    action: Annotated[str, _is("`drop`, `block`, `unblock` or `quit`.")]
    installation: Annotated[str | None, _is("Installation that it is about.")] = None
    peer: Annotated[str, _is("Address that it came from.")]


class RepairRecord(Record, frozen=True, kw_only=True, tag="repair"):
    """A start found the end of a crash: bytes after the last whole record, now set aside."""

    file: Annotated[str, _is("File that it is about.")]
    torn_bytes: Annotated[int, _is("How many bytes were set aside.")]
    torn_sha256: Annotated[str, _is("SHA-256 of them.")]
    torn_file: Annotated[str, _is("File they are in now.")]


class RewoundRecord(Record, frozen=True, kw_only=True, tag="rewound"):
    """A start found that the trail ends before what its anchor knows, or has another record there.

    Records were cut off, or a backup was restored.
    """

    last: Annotated[int, _is("Number of the last record that was there.")]
    known_seq: Annotated[int | None, _is("Newest record that the anchor knew, if any.")] = None
    known_hash: Annotated[str | None, _is("Its hash.")] = None
    reason: Annotated[
        str | None, _is("Why, as an operator said by `audit accept`; none: nobody did.")
    ] = None


class MovedRecord(Record, frozen=True, kw_only=True, tag="moved"):
    """Somebody touched the open file from outside; a new one was begun."""

    file: Annotated[str, _is("File that it is about.")]
    found: Annotated[str, _is("`renamed`, `removed`, `truncated` or `appended` to.")]


class PrunedRecord(Record, frozen=True, kw_only=True, tag="pruned"):
    """Old files are deleted, as `audit.keep` or `audit.keep_days` asks."""

    before: Annotated[int, _is("First sequence number that is kept.")]
    files: Annotated[tuple[str, ...], _is("Names of the files.")]


class GapRecord(Record, frozen=True, kw_only=True, tag="gap"):
    """Requests of which there is no record: the trail could not be written, or not fast enough."""

    since: Annotated[str, _is("When the first of them ended.")]
    lost: Annotated[int, _is("Requests that were sent to the API.")]
    refused: Annotated[int, _is("Requests that were not.")]


KINDS = (
    RequestRecord, IntentRecord, SegmentRecord, EndRecord, StartRecord, StopRecord, ReloadRecord,
    KeyRecord, SwitchRecord, RepairRecord, RewoundRecord, MovedRecord, PrunedRecord, GapRecord,
)  # fmt: skip
FORMAT = 1


def intent_of(journal: Journal, *, redact: QueryRedaction, now: float) -> IntentRecord:
    """Make the record of what a request is about to do."""
    return IntentRecord(stamp(now), *_facts_of(journal, redact=redact))


def request_of(outcome: Outcome, *, redact: QueryRedaction) -> RequestRecord:
    """Make the record of how a request ended."""
    first_byte = outcome.first_byte
    fields: tuple[Any, ...] = (
        stamp(outcome.started_at + outcome.duration),
        *_facts_of(outcome, redact=redact),
        _decision(outcome),
        outcome.status,
        outcome.origin,
        outcome.code,
        outcome.duplicate_of,
        outcome.attempts,
        outcome.bytes_in,
        outcome.bytes_out,
        milliseconds(outcome.duration),
        milliseconds(outcome.token_wait),
        None if first_byte is None else milliseconds(first_byte),
        outcome.digest_in,
        outcome.digest_out,
        outcome.intent_seq,
    )
    return RequestRecord(*fields)


def _facts_of(journal: Journal, *, redact: QueryRedaction) -> tuple[Any, ...]:
    """Return the fields of `RequestFacts`, in their order."""
    path, query = _split(journal.target, redact=redact)
    return (
        journal.request_id,
        journal.trace.id,
        journal.listener,
        journal.peer,
        journal.caller,
        journal.method,
        path,
        query,
        journal.operation,
        journal.changes_state,
        journal.rule,
        journal.installation,
        journal.organization,
        journal.token,
        journal.token_generation,
    )


def tagged() -> list[tuple[str, type[Record]]]:
    """List the kinds of record with what they are called in the file."""
    return [(str(kind.__struct_config__.tag), kind) for kind in KINDS]


def _decision(outcome: Outcome) -> str | None:
    if outcome.code == "policy-denied":
        return "denied"
    if outcome.rule is None:
        return None
    return "allowed" if outcome.would_refuse is None else "reported"


def _split(target: str | None, *, redact: QueryRedaction) -> tuple[str, str | None]:
    if target is None:
        return "", None
    path, mark, query = target.partition("?")
    # Redacted as it was sent: what `printable` escapes could no longer be read as a name.
    return printable(path), printable(redact(query)) if mark else None

"""Writes what is generated for people anew: `make docs`. Tests compare it with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from icr_proxy.audit.records import KINDS, tagged
from icr_proxy.config.reference import reference_table
from icr_proxy.http1.problem import refusal_table
from icr_proxy.policy.operations import ROWS, match
from tests.support.manpage import PAGE, manual

ROOT = Path(__file__).parents[2]


def operation_table() -> str:
    """Give the table of all operations; `/v0.5` means the same as no prefix (see the page)."""
    lines = ["| Operation | Method | Path | Write |", "|---|---|---|---|"]
    for method, template, name in sorted(ROWS, key=lambda row: (row[2], row[1])):
        if not template.startswith("/v0.5/") or template == "/v0.5/openapi":
            found = match(method, template.replace("{", "").replace("}", ""))
            write = "yes" if found.changes_state else ""
            lines.append(f"| `{name}` | {method} | `{template}` | {write} |")
    return "\n".join(lines) + "\n"


BINDING = {
    "seq": "Sequence number, from 1, without a gap.",
    "prev": "`hash` of the record before, zeros for the first of all.",
    "kind": "Which of the records above it is.",
    "hash": "SHA-256 of the line up to here, in hex.",
    "mac": "HMAC-SHA-256 of the 32 bytes of `hash`, in hex; not there without `audit.key_file`.",
}


def record_table() -> str:
    """Give the table of all records of `docs/audit.md`."""
    rows = ["| Record | Meaning |", "|---|---|"]
    rows += [f"| `{tag}` | {(kind.__doc__ or '').splitlines()[0]} |" for tag, kind in tagged()]
    return "\n".join(rows) + "\n"


def field_table() -> str:
    """Give the table of all fields of `docs/audit.md`."""
    found: dict[tuple[str, str], list[str]] = {}
    for tag, kind in tagged():
        hints = get_type_hints(kind, include_extras=True)
        for name in kind.__struct_fields__:
            found.setdefault((name, _meaning(hints[name])), []).append(f"`{tag}`")
    rows = ["| Field | In | Meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | all | {BINDING[name]} |" for name in ("seq", "prev", "kind")]
    for (name, meaning), kinds in found.items():
        where = "all" if len(kinds) == len(KINDS) else ", ".join(kinds)
        rows.append(f"| `{name}` | {where} | {meaning} |")
    rows += [f"| `{name}` | all | {BINDING[name]} |" for name in ("hash", "mac")]
    return "\n".join(rows) + "\n"


def _meaning(hint: Any) -> str:
    return str(hint.__metadata__[0].description)


TABLES = {
    ROOT / "docs" / "reference" / "configuration.md": {"config-table": reference_table},
    ROOT / "docs" / "reference" / "refusals.md": {"refusal-table": refusal_table},
    ROOT / "docs" / "reference" / "operations.md": {"operation-table": operation_table},
    ROOT / "docs" / "audit.md": {"audit-records": record_table, "audit-fields": field_table},
}


def rewritten(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """Give the document with what stands between its markers made anew."""
    for marker, table in tables.items():
        begin, end = f"<!-- {marker}:begin -->\n", f"<!-- {marker}:end -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}{table()}{end}{after}"
    return text


if __name__ == "__main__":
    for document, tables in TABLES.items():
        document.write_text(rewritten(document.read_text(), tables))
    PAGE.write_text(manual())

"""Writes what is generated for people anew: `make docs`. Tests compare it with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from icr_proxy.audit.records import field_table, record_table
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

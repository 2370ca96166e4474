"""Writes what is generated for people anew: `make docs`. Tests compare it with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from icr_proxy.audit.records import field_table, record_table
from icr_proxy.config.reference import reference_table
from icr_proxy.http1.problem import refusal_table
from tests.support.manpage import PAGE, manual

ROOT = Path(__file__).parents[2]
TABLES = {
    ROOT / "docs" / "reference" / "configuration.md": {"config-table": reference_table},
    ROOT / "docs" / "reference" / "refusals.md": {"refusal-table": refusal_table},
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

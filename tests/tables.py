"""Writes the README's generated tables anew: `make docs`. `test_documents` compares them."""

from __future__ import annotations

from pathlib import Path

from proxy.reference import reference_table, refusal_table

README = Path(__file__).parent.parent / "README.md"
TABLES = {"config-table": reference_table, "refusal-table": refusal_table}


def rewritten(text: str) -> str:
    """Give the document with what stands between its markers made anew."""
    for marker, table in TABLES.items():
        begin, end = f"<!-- {marker}:begin -->\n", f"<!-- {marker}:end -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}{table()}{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))

"""How a refused value is shown: one line, nothing that might be a credential in a wrong place."""

from __future__ import annotations

import json
import re

_LONGEST = 80

# A key pasted where its path belongs (as it is, in base64), a token where an ID belongs,
# a caller's key.
_CREDENTIAL = re.compile(r"\n|PRIVATE KEY|LS0tLS1|\bcrs_|icrp_|\beyJ")


def shown(raw: object) -> str:
    """Show a refused value as an error quotes it."""
    if isinstance(raw, str):
        return _shown_text(raw)
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, int | float):
        return str(raw)
    if isinstance(raw, dict):
        return "a mapping"
    if isinstance(raw, list | tuple):
        return "a list"
    return "nothing" if raw is None else f"a {type(raw).__name__}"


def _shown_text(raw: str) -> str:
    if _CREDENTIAL.search(raw):
        return "***"
    safe = re.sub(r"[?#].*", "?***", re.sub(r".*@", "***@", raw))
    if len(safe) > _LONGEST:
        safe = safe[:_LONGEST] + "..."
    return json.dumps(safe)  # escapes what would break the line, or turn its direction

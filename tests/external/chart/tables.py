"""Writes what the chart says of its values anew, from values.yaml and the proxy's own keys.

`make docs` runs it, and `check_documents.py` compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from icr_proxy.config.models import Config
from icr_proxy.config.reference import json_schema
from icr_proxy.config.spec import leaves
from icr_proxy.config.value_types import SecretText, StoreUrl
from tests.support.tables import rewritten

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "icr-proxy"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
CONFIG_TEMPLATE = CHART / "templates" / "_config.tpl"

# They would end up in a ConfigMap, for everybody who may read those.
SECRETS = [path for path, _, key in leaves(Config) if isinstance(key.kind, SecretText | StoreUrl)]
LISTS = ("callers", "listeners")  # the template has them by heart: the first is live as a whole
LINE = re.compile(r"^( *)([A-Za-z]+):")
LIVE_KEYS = re.compile(r'(define "icr-proxy\.liveKeys" -}}\n)(.*?)({{- end }})', re.DOTALL)

Path_ = tuple[str, ...]


def described() -> Iterator[tuple[Path_, str]]:
    """Give every value of values.yaml that has a comment, and that comment."""
    comment: list[str] = []
    above: list[tuple[int, str]] = []
    for line in VALUES.read_text().splitlines():
        found = LINE.match(line)
        if line.lstrip().startswith("# "):
            comment.append(line.lstrip()[2:])
        elif found and (comment or line.rstrip().endswith(":")):
            depth = len(found[1])
            above = [each for each in above if each[0] < depth] + [(depth, found[2])]
            if comment:
                yield tuple(name for _, name in above), " ".join(comment)
            comment = []


def value_at(path: Path_, tree: Any) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def values_table() -> str:
    values = yaml.safe_load(VALUES.read_text())
    rows = [
        f"| `{'.'.join(path)}` | `{json.dumps(value_at(path, values))}` | {text} |"
        for path, text in described()
    ]
    return "\n".join(["| Value | Default | Meaning |", "|---|---|---|", *rows, ""])


def config_schema() -> dict[str, Any]:
    """Give the schema of the proxy's file as the chart takes it.

    Without secrets; without what Go's regular expressions cannot say, which the proxy then checks.
    """
    schema: dict[str, Any] = json_schema()
    del schema["$schema"], schema["title"]
    for path in SECRETS:
        section = value_at(tuple(step for name in path[:-1] for step in _down(name)), schema)
        del section["properties"][path[-1]]
    return _for_go(schema)


def _down(name: str) -> Path_:
    """Give the steps in a schema to a key, or to the items of a list."""
    return ("items",) if name.isdecimal() else ("properties", name)


def _for_go(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {name: each for name, each in schema.items() if name not in ("examples", "default")}
    if "(?=" in kept.get("pattern", ""):
        del kept["pattern"]
    if "properties" in kept:
        kept["properties"] = {name: _for_go(each) for name, each in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _for_go(kept["items"])
    if "anyOf" in kept:
        kept["anyOf"] = [_for_go(each) for each in kept["anyOf"]]
    return kept


def values_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Give the chart's schema with the proxy's own in it, and each value described."""
    schema["properties"]["config"] = config_schema()
    for path, text in described():
        value_at(tuple(step for name in path for step in ("properties", name)), schema)[
            "description"
        ] = text
    return schema


def live_keys() -> str:
    """Give the keys that a running proxy takes up, by section, as the template lists them."""
    kinds: dict[tuple[str, str], set[bool]] = {}
    for path, _, key in leaves(Config):
        if path[0] not in LISTS:
            kinds.setdefault((path[0], path[1]), set()).add(key.live)
    live = sorted(path for path, found in kinds.items() if found == {True})
    return "".join(
        f"{section}: [{', '.join(key for _, key in keys)}]\n"
        for section, keys in groupby(live, key=itemgetter(0))
    )


def config_template() -> str:
    return LIVE_KEYS.sub(rf"\g<1>{live_keys()}\g<3>", CONFIG_TEMPLATE.read_text())


def schema_text() -> str:
    return json.dumps(values_schema(json.loads(SCHEMA.read_text())), indent=1) + "\n"


def readme_text() -> str:
    return rewritten(README.read_text(), {"values-table": values_table})


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
    CONFIG_TEMPLATE.write_text(config_template())
    README.write_text(readme_text())

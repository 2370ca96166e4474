"""What every injected proxy gets, unless an annotation says otherwise, as the flags say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from icr_proxy import __version__
from icr_proxy.config.value_types import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without signs
QUANTITY = Text(
    what="an amount",
    pattern=r"[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|[KMGTPE]i|[MGTPE])?",
    example="50m",
)
RESOURCES = ("cpu", "memory", "ephemeral-storage")

# Names that begin so are kept for Kubernetes itself, whose pods must start before any webhook can.
RESERVED = "kube-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How pods are injected."""

    image: str = f"icr-proxy:{__version__}"
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    mode: Literal["native", "plain"] = "native"
    on_conflict: Literal["refuse", "pass"] = "refuse"
    app_id: str | None = None
    key_secret: str | None = None
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "50m", "memory": "96Mi"})
    limits: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "256Mi"})
    excluded: frozenset[str] = frozenset()
    """Namespaces that are left alone, beside those of Kubernetes itself."""

    def leaves_alone(self, namespace: str) -> bool:
        """Tell whether nothing is ever injected there."""
        return namespace.startswith(RESERVED) or namespace in self.excluded


def read_amounts(text: str) -> dict[str, str]:
    """Read `cpu=50m,memory=96Mi`; nothing is none. Raises ValueError with the rule."""
    amounts = {}
    for each in filter(None, (part.strip() for part in text.split(","))):
        name, _, amount = each.partition("=")
        if name not in RESOURCES:
            raise ValueError(f"is not of the form cpu=50m,memory=96Mi ({', '.join(RESOURCES)})")
        amounts[name] = QUANTITY.read(amount)
    return amounts

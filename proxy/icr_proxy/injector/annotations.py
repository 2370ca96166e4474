"""The annotations of a pod that say if it gets a proxy, and how that is configured.

Most of them are keys of the proxy's configuration and are read as these are, so that what is
accepted here is what the proxy will accept when it starts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from icr_proxy.config import fields as of
from icr_proxy.config.loader import load
from icr_proxy.config.models import Config
from icr_proxy.config.spec import lookup_key, variable
from icr_proxy.config.value_types import Choice, Count, Text
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import quote_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from icr_proxy.config.value_types import ValueType
    from icr_proxy.injector.sidecar import Defaults

PREFIX = "icr-proxy/"
INJECT, INJECTED = "inject", "injected"
# The chart's own: pods of a gateway, and those that have its sidecar templates.
RESTART = "restart"
CONFIG_FOLDER, KEYS_FOLDER = "/etc/icr-proxy/config", "/etc/icr-proxy/keys"
CONFIG_FILE = f"{CONFIG_FOLDER}/icr-proxy.yaml"
PORT, ADMIN_PORT = 8080, 9090

MODE = Choice(("native", "plain"))
# Without root, and without a capability, nobody binds below 1024.
PORT_NUMBER = Count(low=1024, high=65535, example="8080")
OBJECT_NAME = Text(
    what="the name of an object (small letters, digits, - and .)",
    pattern=r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
    example="icr-app-keys",
)
IMAGE = Text(
    what="an image",
    pattern=r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,510}",
    example="registry.example/icr-proxy:0.1.0",
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """What may be said of one thing; `key` is that of the configuration which it sets, if any."""

    kind: ValueType
    key: str | None = None

    @property
    def variable(self) -> str | None:
        """The environment variable that it becomes as it stands."""
        return None if self.key is None else variable(tuple(self.key.split(".")))


def _of(key: str) -> Annotation:
    found = lookup_key(Config, tuple(key.split(".")))
    if found is None:
        raise LookupError(key)
    return Annotation(found[1].kind, key)


ANNOTATIONS: Mapping[str, Annotation] = {
    INJECT: Annotation(of.SWITCH),
    "app-id": _of("app.id"),
    "key-secret": Annotation(OBJECT_NAME),
    "config-map": Annotation(OBJECT_NAME),
    "installation": _of("listeners.0.installation"),
    "untagged": _of("listeners.0.untagged"),
    "port": Annotation(PORT_NUMBER),
    "read-only": _of("policy.read_only"),
    "duplicate-guard": _of("policy.duplicate_guard"),
    "base-url": _of("upstream.base_url"),
    "admin-port": Annotation(PORT_NUMBER),
    "admin-exposed": Annotation(of.SWITCH),
    "mode": Annotation(MODE),
    "image": Annotation(IMAGE),
    # What the injector itself leaves behind, and finds when it is asked again.
    INJECTED: Annotation(Text(what="a version", pattern=r"[!-~]{1,64}", example="0.1.0")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a pod is to get."""

    mode: str
    image: str
    key_secret: str
    config_map: str | None
    port: int | None
    """None if the ConfigMap says it."""
    admin_port: int
    admin_exposed: bool
    variables: tuple[tuple[str, str], ...]
    """The environment of the proxy."""

    @property
    def admin(self) -> str:
        """Where the proxy's own probes ask."""
        return f"127.0.0.1:{self.admin_port}"


def ours(annotations: Mapping[str, str]) -> dict[str, str]:
    """Give what is addressed to the injector, without the prefix."""
    return {
        name.removeprefix(PREFIX): text
        for name, text in annotations.items()
        if name.startswith(PREFIX) and name != PREFIX + RESTART
    }


def read_wish(said: Mapping[str, str], defaults: Defaults) -> Wish | tuple[str, ...]:
    """Read what `ours` gave; or give every complaint, each a sentence that names the annotation."""
    problems = tuple(_problems(said))
    if problems:
        return problems
    mode = said.get("mode", defaults.mode)
    config_map = said.get("config-map")
    key_secret = said.get("key-secret", defaults.key_secret)
    app_id = said.get("app-id", None if config_map else defaults.app_id)
    admin_port = int(said.get("admin-port", ADMIN_PORT))
    port = int(said.get("port", PORT)) if "port" in said or config_map is None else None
    missing = tuple(_missing(key_secret=key_secret, app_id=app_id, config_map=config_map))
    if missing or key_secret is None:
        return missing
    if port == admin_port:
        return (f"{PREFIX}port: is {port}, which is {PREFIX}admin-port as well",)
    wish = Wish(
        mode=mode,
        image=said.get("image", defaults.image),
        key_secret=key_secret,
        config_map=config_map,
        port=port,
        admin_port=admin_port,
        admin_exposed="admin-exposed" in said and of.SWITCH.read(said["admin-exposed"]),
        variables=(),
    )
    return _with_variables(wish, said, app_id=app_id)


def _problems(said: Mapping[str, str]) -> Iterator[str]:
    for name, text in said.items():
        known = ANNOTATIONS.get(name)
        if known is None:
            near = get_close_matches(name, ANNOTATIONS, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            yield f"{PREFIX}{name[:63]}: unknown annotation{hint}"
            continue
        try:
            known.kind.read(text)
        except ValueError as rule:
            yield f"{PREFIX}{name}: {quote_value(text)} {rule}"


def _missing(
    *, key_secret: str | None, app_id: str | None, config_map: str | None
) -> Iterator[str]:
    if key_secret is None:
        yield f"{PREFIX}key-secret: is missing; name the Secret that has the app's private key"
    if app_id is None and config_map is None:
        yield f"{PREFIX}app-id: is missing; the proxy needs it, or a {PREFIX}config-map that has it"


def _with_variables(
    wish: Wish, said: Mapping[str, str], *, app_id: str | None
) -> Wish | tuple[str, ...]:
    host = "*" if wish.admin_exposed else "127.0.0.1"
    variables = {
        "ICR_PROXY_APP__PRIVATE_KEYS_DIR": KEYS_FOLDER,
        "ICR_PROXY_ADMIN__BIND": f"{host}:{wish.admin_port}",
    }
    if app_id is not None:
        variables["ICR_PROXY_APP__ID"] = app_id
    if wish.port is not None:
        variables["ICR_PROXY_LISTENERS__0__BIND"] = f"127.0.0.1:{wish.port}"
    for name, text in said.items():
        known = ANNOTATIONS[name].variable
        if known is not None:
            variables[known] = text
    if wish.config_map is None:
        try:
            load(file=None, environ=variables, flags={})
        except ConfigError as error:
            return tuple(map(_together, error.problems))
    return replace(wish, variables=tuple(sorted(variables.items())))


# Which annotation a variable comes from, if not as it stands.
_VARIABLES: Mapping[str, str] = {
    "ICR_PROXY_APP__PRIVATE_KEYS_DIR": "key-secret",
    "ICR_PROXY_ADMIN__BIND": "admin-port",
    "ICR_PROXY_LISTENERS__0__BIND": "port",
} | {each.variable: name for name, each in ANNOTATIONS.items() if each.variable is not None}
_VARIABLE = re.compile(r"(?:environment variable )?(ICR_PROXY_[A-Z0-9_]+)")


def _together(problem: str) -> str:
    """Say what the proxy would say at its start, in the names that the pod's author has used."""

    def named(found: re.Match[str]) -> str:
        name = _VARIABLES.get(found[1])
        return found[0] if name is None else f"annotation {PREFIX}{name}"

    text = _VARIABLE.sub(named, problem)
    return (
        f"the annotations do not go together: {text}; a key that has no annotation can be set in a"
        f" ConfigMap ({PREFIX}config-map)"
    )

"""Rules between several configuration keys.

Each rule gets their values in order and gives the rest of a sentence that begins with the first
key, or None if all is well.
"""

from __future__ import annotations

import dataclasses
import os
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.net import addresses
from icr_proxy.policy.rules import Policy, unmatched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from icr_proxy.config.inbound_models import (
        CallerConfig,
        ListenerConfig,
        PolicyConfig,
        RuleConfig,
    )
    from icr_proxy.config.models import AdminConfig, WebhooksConfig
    from icr_proxy.redaction import Secret


def some_key(file: Path | None, directory: Path | None, text: Secret | None) -> str | None:
    """Demand a source of the private key."""
    if file is None and directory is None and text is None:
        return "is required, unless app.private_keys_dir or app.private_key is given"
    return None


def not_beside(other: str) -> Callable[[object, object], str | None]:
    """Make the rule that of two keys, `other` the second, only one is set."""

    def rule(value: object, beside: object) -> str | None:
        if value is None or beside is None:
            return None
        return f"is set, and so is {other}; keep one of the two"

    return rule


def together(other: str) -> Callable[[object, object], str | None]:
    """Make the rule that a key and the one beside it, `other`, are both set or neither is."""

    def rule(value: object, beside: object) -> str | None:
        if (value is None) == (beside is None):
            return None
        if value is None:
            return f"is required if {other} beside it is set"
        return f"needs {other} beside it, which is not set"

    return rule


def only_with(other: str) -> Callable[[object, object], str | None]:
    """Make the rule that a key is set only if the one beside it, `other`, is."""

    def rule(value: object, beside: object) -> str | None:
        if value is None or beside is not None:
            return None
        return f"has no effect without {other} beside it"

    return rule


def of_sharing(setting: object, url: Secret | None, file: Path | None) -> str | None:
    """Find a setting about shared tokens where none are shared."""
    if setting is None or url is not None or file is not None:
        return None
    return "is set, but no tokens are shared without tokens.shared or tokens.shared_url_file"


def own_tokens(revoke: bool, url: Secret | None, file: Path | None) -> str | None:  # noqa: FBT001 - a row of values
    """Keep a replica that stops from killing tokens that others still use."""
    if not revoke or (url is None and file is None):
        return None
    return "is set, and so is tokens.shared: other replicas still use those tokens; keep one"


def someone_to_ask(client_auth: str, client_ca: Path | None) -> str | None:
    """Find a choice about client certificates where none are asked for."""
    if client_auth == "required" or client_ca is not None:
        return None
    return f'"{client_auth}" has no effect without client_ca beside it'


def encrypted(base_url: str, allow_plain: bool) -> str | None:  # noqa: FBT001 - a row of values
    """Keep access tokens off unencrypted networks."""
    if base_url.startswith("https:") or allow_plain:
        return None
    if addresses.is_loopback(addresses.url_host(base_url)):
        return None
    return (
        f'"{base_url}" would carry access tokens unencrypted; write https,'
        " or set upstream.allow_plain if the way is safe"
    )


def of_a_unix_socket(value: str | None, bind: str) -> str | None:
    """Find a property of Unix sockets where there is none."""
    if value is None or addresses.unix_path(bind) is not None:
        return None
    return f'"{value}" has no effect: bind beside it is no Unix socket (unix:/path)'


def known_fronts(
    networks: Sequence[str],
    proxy_protocol: bool,  # noqa: FBT001 - a row of values
    bind: str,
) -> str | None:
    """Demand the load balancers whose word for a caller's address is taken."""
    in_vain = None
    if not proxy_protocol:
        in_vain = "has no effect without proxy_protocol: true beside it"
    elif addresses.unix_path(bind) is not None:
        in_vain = "has no effect: whoever may connect to a Unix socket is trusted"
    if networks or in_vain is not None:
        return in_vain if networks else None
    return (
        "is required if proxy_protocol beside it is true; list the load balancers' networks:"
        " whoever else connects could pose as any address"
    )


def each_once(tags: Sequence[str]) -> str | None:
    """Take a word that is repeated for a slip."""
    twice = next((tag for tag in tags if tags.count(tag) > 1), None)
    return f'has "{twice}" twice' if twice else None


def some_credential(tags: Sequence[str], installation: str | None, untagged: str) -> str | None:
    """Refuse a listener on which every request would be refused."""
    if tags or installation is not None or untagged != "refuse":
        return None
    return (
        "is empty, so that no request could name an installation; list a tag,"
        " or set installation or untagged beside it"
    )


def one_meaning(untagged: str, installation: str | None) -> str | None:
    """Let a request that names no installation mean one thing."""
    if untagged == "refuse" or installation is None:
        return None
    return (
        f'"{untagged}" contradicts installation beside it, which is for the same requests;'
        " keep one of the two"
    )


def among_allowed(installation: str | None, allow: Sequence[str]) -> str | None:
    """Find a listener that would refuse its own installation."""
    if installation is None or not allow or installation in allow:
        return None
    return f'"{installation}" is not in allow beside it'


def told_apart(organization: str, installation: str) -> str | None:
    """Keep two headers apart, by the rules of those who take - and _ for the same."""
    if _folded(organization) != _folded(installation):
        return None
    return f'"{organization}" and "{installation}" of headers.installation are the same header'


def _folded(header: str) -> str:
    return header.lower().replace("_", "-")


def reached_on_purpose(bind: str | None, exposed: bool) -> str | None:  # noqa: FBT001 - a row of values
    """Demand a word before other machines can deliver webhooks."""
    if bind is None or exposed or not addresses.is_reachable(bind):
        return None
    return (
        f'"{bind}" can be reached from other machines; if that is meant, set webhooks.exposed: true'
    )


def verifiable(file: Path | None, text: Secret | None, bind: str | None) -> str | None:
    """Demand the secret without which no delivery can be believed."""
    if bind is None or file is not None or text is not None:
        return None
    return "is required if webhooks.bind is set, unless webhooks.secret is given"


def drain_order(min_drain: float, max_drain: float) -> str | None:
    """Keep the end of draining after its beginning."""
    if min_drain <= max_drain:
        return None
    return f"{min_drain:g}s is longer than shutdown.max_drain, {max_drain:g}s"


def switched_on(setting: object, directory: Path | None) -> str | None:
    """Find a setting that would do nothing, because what it is about is off."""
    if setting is None or directory is not None:
        return None
    return "is set, but there is no audit trail without audit.directory"


def rules_that_can_match(rules: Sequence[RuleConfig]) -> str | None:
    """Let the policy refuse a rule that could never match, a misspelt operation above all."""
    try:
        Policy(rules=tuple(rules))
    except ValueError as exc:
        return "; ".join(str(exc).splitlines())
    return None


def someone_to_serve(listeners: Sequence[ListenerConfig]) -> str | None:
    """Demand a listener."""
    return None if listeners else "is empty; at least one listener is needed"


def binds_apart(
    listeners: Sequence[ListenerConfig], admin: AdminConfig, webhooks: WebhooksConfig
) -> str | None:
    """Find the first two binds of which one would not get its port."""
    places = [(f"listeners[{at}].bind", each.bind) for at, each in enumerate(listeners)]
    places.append(("admin.bind", admin.bind))
    if webhooks.bind is not None:
        places.append(("webhooks.bind", webhooks.bind))
    for (key, bind), (other, taken) in combinations(places, 2):
        if addresses.collide(bind, taken):
            place = "a port" if addresses.host_and_port(bind) else "a socket"
            return f'"{bind}" of {key} and "{taken}" of {other} cannot share {place}'
    return None


def token_file_of_its_own(admin: AdminConfig, *others: object) -> str | None:
    """Keep the admin token, which replaces its file, out of the files that others read."""
    if admin.token_file is None:
        return None
    wanted = os.path.realpath(admin.token_file)
    if all(os.path.realpath(path) != wanted for path in _files_in(others)):
        return None
    return (
        f'"{admin.token_file}" of admin.token_file is named by another key, too; each start'
        " replaces that file, so name one that is for the admin token only"
    )


def _files_in(value: object) -> Iterator[Path]:
    """Give every path in a section, or in several."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _files_in(each)
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from _files_in(getattr(value, part.name))


def exposed_on_purpose(
    listeners: Sequence[ListenerConfig], callers: Sequence[CallerConfig]
) -> str | None:
    """Demand a word, or proof of who calls, before other machines can use our credentials."""
    for at, listener in enumerate(listeners):
        guarded = bool(callers) and not listener.anonymous
        if guarded or listener.exposed or listener.tls.verifies_clients:
            continue
        if addresses.is_reachable(listener.bind):
            return (
                f'"{listener.bind}" of listeners[{at}].bind can be reached from other machines,'
                " and whoever reaches it acts as the installation; list callers, or let"
                " tls.client_ca say whose client certificates are taken, or if that is meant, set"
                f" listeners[{at}].exposed: true (..._LISTENERS__{at}__EXPOSED)"
            )
    return None


def keys_in_the_open(
    listeners: Sequence[ListenerConfig], callers: Sequence[CallerConfig]
) -> tuple[str, ...]:
    """Name the listeners to which keys of callers may come over an unencrypted network."""
    if not any(caller.keys for caller in callers):
        return ()
    return tuple(
        each.bind
        for each in listeners
        if not each.anonymous and not each.tls.is_on and addresses.is_reachable(each.bind)
    )


def operations_that_exist(globs: tuple[str, ...]) -> str | None:
    """Find a name that means no operation, so that it would allow nothing."""
    return "; ".join(unmatched(globs)) or None


def callers_told_apart(callers: Sequence[CallerConfig]) -> str | None:
    """Let a name, a key and a certificate mean one caller."""
    names: dict[str, int] = {}
    credentials: dict[str, int] = {}
    for at, caller in enumerate(callers):
        if names.setdefault(caller.name, at) != at:
            return f'has "{caller.name}" twice'
        for key in caller.keys:
            if credentials.setdefault(key, at) != at:
                return f"[{credentials[key]}] and [{at}] have the same key"
        for name in caller.certificates:
            if credentials.setdefault(name, at) != at:
                return f'[{credentials[name]}] and [{at}] have the same certificate, "{name}"'
    return None


def rules_about_known_callers(policy: PolicyConfig, callers: Sequence[CallerConfig]) -> str | None:
    """Find a rule about somebody who is no caller: it would never match."""
    known = {caller.name for caller in callers}
    for rule in policy.rules:
        for name in rule.callers:
            if name not in known:
                return (
                    f'has the rule "{rule.name}" about the caller "{name}", who is not in callers'
                )
    return None

"""What must hold between the configuration keys that say who is let in.

Rules as in `consistency`: each gives the rest of a sentence that begins with the first key, or
None if all is well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from icr_proxy.net import addresses
from icr_proxy.policy import rules as policy

if TYPE_CHECKING:
    from collections.abc import Sequence


class Encrypting(Protocol):
    """The TLS of a listener, perhaps off."""

    @property
    def is_on(self) -> bool:
        """Whether it is not."""

    @property
    def verifies_clients(self) -> bool:
        """Whether nobody is served who has no certificate of a known authority."""


class Reachable(Protocol):
    """A listener, as configured."""

    @property
    def bind(self) -> str:
        """Where."""

    @property
    def exposed(self) -> bool:
        """Whether other machines are meant to."""

    @property
    def tls(self) -> Encrypting:
        """How it is encrypted, if it is."""

    @property
    def anonymous(self) -> bool:
        """Whether it lets in whoever comes."""


class CallerLike(Protocol):
    """A caller, as configured."""

    @property
    def name(self) -> str:
        """What log and rules call it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Hashes of its keys."""

    @property
    def certificates(self) -> tuple[str, ...]:
        """Names in its certificates."""


class RuleAboutCallers(Protocol):
    """A rule of the policy, as configured."""

    @property
    def name(self) -> str:
        """What log and refusals call it."""

    @property
    def callers(self) -> tuple[str, ...]:
        """Callers it is about, by name."""


class HasRules(Protocol):
    """The policy, as configured."""

    @property
    def rules(self) -> Sequence[RuleAboutCallers]:
        """In their order."""


def exposed_on_purpose(listeners: Sequence[Reachable], callers: Sequence[CallerLike]) -> str | None:
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
    listeners: Sequence[Reachable], callers: Sequence[CallerLike]
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
    return "; ".join(policy.unmatched(globs)) or None


def callers_told_apart(callers: Sequence[CallerLike]) -> str | None:
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


def rules_about_known_callers(rules_in: HasRules, callers: Sequence[CallerLike]) -> str | None:
    """Find a rule about somebody who is no caller: it would never match."""
    known = {caller.name for caller in callers}
    for rule in rules_in.rules:
        for name in rule.callers:
            if name not in known:
                return (
                    f'has the rule "{rule.name}" about the caller "{name}", who is not in callers'
                )
    return None

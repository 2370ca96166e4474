"""Which key signs: the newest, unless the API takes only an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from icr_proxy.credentials.key_ring import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from icr_proxy.config.models import AppConfig
    from icr_proxy.credentials.signing_key import SigningKey
    from icr_proxy.errors import KeyUnusableError

# A new key is often put here before the registry has it, so it is tried again by and by; each try
# costs one call that the API refuses, and nobody waits for more than that.
BEHIND_SECONDS = 300.0


class KeyWatcher(Protocol):
    """What is told about keys."""

    def loaded(self, fingerprint: str) -> None:
        """A key is there that was not there before."""

    def rejected(self, error: KeyUnusableError) -> None:
        """A file holds no usable key; whatever was in use stays so."""

    def stand(self, states: Mapping[str, str]) -> None:
        """How each key stands now: `active`, `refused` or `standby`, by fingerprint."""

    def only_old_works(self, *, works: str, newest: str) -> None:
        """The API takes an older key and refuses the newest."""

    def newest_works(self, fingerprint: str) -> None:
        """The alarm is over."""


class Unwatched:
    """A `KeyWatcher` that passes nothing on."""

    def loaded(self, fingerprint: str) -> None:
        """Pass over."""

    def rejected(self, error: KeyUnusableError) -> None:
        """Pass over."""

    def stand(self, states: Mapping[str, str]) -> None:
        """Pass over."""

    def only_old_works(self, *, works: str, newest: str) -> None:
        """Pass over."""

    def newest_works(self, fingerprint: str) -> None:
        """Pass over."""


class KeyRing:
    """The keys of an app; a changed file is taken up by `look`, and when the next token is minted.

    A key that the API refused goes behind the others for some minutes, provided that it took
    another one; if it refuses all, that says nothing of any of them (see `appcalls`).
    """

    def __init__(
        self, app: AppConfig, *, now: Callable[[], float], watcher: KeyWatcher | None = None
    ) -> None:
        """Load the keys that the configuration names; `now` never jumps.

        Raises:
            KeyUnusableError: there is no usable key.
        """
        self._source = source_of(app)
        self._now = now
        self._watcher: KeyWatcher = watcher or Unwatched()
        self._keys: tuple[SigningKey, ...] = ()
        self._refused_at: dict[str, float] = {}
        self._active = ""
        self._alarm: tuple[str, str] | None = None
        self._told: dict[str, str] = {}
        self._read()

    @property
    def fingerprint(self) -> str:
        """Which key signs, without looking for a newer one."""
        return self._active

    @property
    def states(self) -> dict[str, str]:
        """How each key stands, the newest first."""
        return {key.fingerprint: self._state(key.fingerprint) for key in self._keys}

    def look(self) -> None:
        """Take up what has changed in the files, so that a rotation is seen without a mint."""
        self._read()

    def current(self) -> SigningKey:
        """Give the key to sign with."""
        return self.candidates()[0]

    def candidates(self) -> tuple[SigningKey, ...]:
        """Give the keys to try, the best first; there is at least one."""
        self._read()
        return tuple(sorted(self._keys, key=lambda key: self._is_behind(key.fingerprint)))

    def accepted(self, fingerprint: str) -> None:
        """The API took a signature of this key."""
        if not self._has(fingerprint):
            return
        self._refused_at.pop(fingerprint, None)
        self._active = fingerprint
        self._judge(fingerprint)
        self._tell_stand()

    def refused(self, fingerprint: str) -> None:
        """The API took another key's signature, but not this one's."""
        if self._has(fingerprint):
            self._refused_at[fingerprint] = self._now()
            self._tell_stand()

    def _judge(self, accepted: str) -> None:
        newest = self._keys[0].fingerprint
        if accepted == newest:
            if self._alarm is not None:
                self._watcher.newest_works(newest)
            self._alarm = None
        elif newest in self._refused_at and self._alarm != (accepted, newest):
            self._alarm = (accepted, newest)
            self._watcher.only_old_works(works=accepted, newest=newest)

    def _read(self) -> None:
        reading = self._source.read()
        if reading is None:
            return
        if not reading.keys and not self._keys:
            raise reading.rejected[-1]
        for error in reading.rejected:
            self._watcher.rejected(error)
        if reading.keys:
            before = {key.fingerprint: key for key in self._keys}
            self._keys = tuple(before.get(key.fingerprint, key) for key in reading.keys)
        for key in reading.news:
            self._watcher.loaded(key.fingerprint)
        self._refused_at = {name: at for name, at in self._refused_at.items() if self._has(name)}
        if not self._has(self._active):
            self._active = self._keys[0].fingerprint
        self._tell_stand()

    def _has(self, fingerprint: str) -> bool:
        return any(key.fingerprint == fingerprint for key in self._keys)

    def _is_behind(self, fingerprint: str) -> bool:
        at = self._refused_at.get(fingerprint)
        return at is not None and self._now() - at < BEHIND_SECONDS

    def _state(self, fingerprint: str) -> str:
        if fingerprint == self._active:
            return "active"
        return "refused" if fingerprint in self._refused_at else "standby"

    def _tell_stand(self) -> None:
        states = self.states
        if states != self._told:
            self._told = states
            self._watcher.stand(states)

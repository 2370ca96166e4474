"""Private keys of the app: their sources, and the choice of the one that signs.

A source is read again and again, and returns what is new since the last time. `stat` follows
symbolic links, so the swap that Kubernetes makes in a mounted secret is seen. The time of change
is compared, too: `cp -p` and `chmod` leave the time of modification alone.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

import msgspec

from icr_proxy.credentials.signing_key import NEEDED, load_key_file, parse_signing_key
from icr_proxy.errors import KeyUnusableError
from icr_proxy.files import signature, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from icr_proxy.config.models import AppConfig
    from icr_proxy.credentials.signing_key import SigningKey
    from icr_proxy.files import Signature

IN_DIRECTORY = "app.private_keys_dir"
FILES_MOST = 100  # more are no directory of keys, but the wrong one


class KeyReading(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that a source holds now."""

    keys: tuple[SigningKey, ...] = ()
    """The best first; empty if there is no usable one."""
    news: tuple[SigningKey, ...] = ()
    """The keys that were not there before, or are back after a failure."""
    rejected: tuple[KeyUnusableError, ...] = ()
    """New failures; if there are no keys at all, the last one says so."""


class KeySource(Protocol):
    """Source of keys."""

    def read(self) -> KeyReading | None:
        """Read again; `None` if nothing has changed. The first reading is never `None`."""


def source_of(app: AppConfig) -> KeySource:
    """Return the source that the configuration names; exactly one is set."""
    if app.private_key_file is not None:
        return FileKeySource(app.private_key_file)
    if app.private_keys_dir is not None:
        return DirectoryKeySource(app.private_keys_dir)
    return InlineKeySource(app.private_key.reveal() if app.private_key is not None else "")


def load_keys(app: AppConfig) -> KeyReading:
    """Read the keys once.

    Raises:
        KeyUnusableError: there is no usable one.
    """
    reading = source_of(app).read() or KeyReading()
    if not reading.keys:
        raise reading.rejected[-1]
    return reading


class InlineKeySource:
    """A key given as text, which never changes."""

    def __init__(self, text: str) -> None:
        self._text: str | None = text

    def read(self) -> KeyReading | None:
        """Parse it, once."""
        if self._text is None:
            return None
        text, self._text = self._text, None
        try:
            key = parse_signing_key(text, source="app.private_key")
        except KeyUnusableError as error:
            return KeyReading(rejected=(error,))
        return KeyReading(keys=(key,), news=(key,))


class FileKeySource:
    """A key file, which may change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Signature | None = None
        self._is_first = True
        self._last: str | None = None  # fingerprint of the key last read; none after a failure

    def read(self) -> KeyReading | None:
        """Read the file if it has changed.

        A pipe is read once, at start; to open it again would wait for a writer for ever.
        """
        seen = signature(self._path)
        if seen == self._seen and not self._is_first:
            return None
        may_wait, self._seen, self._is_first = self._is_first, seen, False
        try:
            key = load_key_file(self._path, may_wait=may_wait)
        except KeyUnusableError as error:
            self._last = None
            return KeyReading(rejected=(error,))
        is_news = key.fingerprint != self._last
        self._last = key.fingerprint
        return KeyReading(keys=(key,), news=(key,) if is_news else ())


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a directory as last read; an unusable one keeps the key it held before."""

    signature: Signature | None
    key: SigningKey | None
    error: KeyUnusableError | None = None


class DirectoryKeySource:
    """A directory of files, the newest of which is the best.

    Names that begin with a dot are ignored: Kubernetes keeps its `..data` there, editors their
    drafts. Times count in whole seconds, and of equally old files the last by name is the best:
    Kubernetes writes all files of a secret anew, in any order, when one of them changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._files: dict[str, _File] = {}
        self._has_failed = False

    def read(self) -> KeyReading | None:
        """Read what has changed."""
        try:
            listed = self._list()
        except KeyUnusableError as error:
            return self._failed(error, seen=error.detail)
        if listed == self._seen:
            return None
        before = self._files
        self._files = {name: self._file(name, seen) for name, seen in listed.items()}
        changed = [file for name, file in self._files.items() if file is not before.get(name)]
        rejected = tuple(file.error for file in changed if file.error is not None)
        keys = self._keys()
        if not keys:
            why = "; ".join(each.detail for each in rejected) or NEEDED
            useless = KeyUnusableError(f"{IN_DIRECTORY} {self._path} holds no usable key: {why}")
            return self._failed(useless, *rejected, seen=listed)
        fresh = good_keys(changed) - good_keys(before.values())
        news = tuple(key for key in keys if self._has_failed or key.fingerprint in fresh)
        self._seen, self._has_failed = listed, False
        return KeyReading(keys=keys, news=news, rejected=rejected)

    def _failed(
        self, error: KeyUnusableError, *others: KeyUnusableError, seen: object
    ) -> KeyReading | None:
        if seen == self._seen:
            return None
        self._seen, self._has_failed = seen, True
        return KeyReading(rejected=(*others, error))

    def _list(self) -> dict[str, Signature | None]:
        """Return the signature of each file; directories and dangling links are no files.

        Raises:
            KeyUnusableError: the directory cannot be read, or is not one of keys.
        """
        try:
            names = [name for name in os.listdir(self._path) if not name.startswith(".")]  # noqa: PTH208  # names are all that is needed
        except OSError as exc:
            raise KeyUnusableError(
                f"{IN_DIRECTORY} {self._path} cannot be read: {exc.strerror}"
            ) from None
        if len(names) > FILES_MOST:
            raise KeyUnusableError(
                f"{IN_DIRECTORY} {self._path} holds over {FILES_MOST} files; is it the right one?"
            )
        signatures: dict[str, Signature | None] = {}
        for name in names:
            path = self._path / name
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # in the middle of a swap a link may lead nowhere for a moment
            except OSError:
                signatures[name] = None  # reading will say why
                continue
            if not stat.S_ISDIR(found.st_mode):
                signatures[name] = signature_of(found)
        return signatures

    def _file(self, name: str, seen: Signature | None) -> _File:
        """Read a file if it has changed."""
        before = self._files.get(name)
        if before is not None and before.signature == seen:
            return before
        try:
            key = load_key_file(self._path / name, source=IN_DIRECTORY)
        except KeyUnusableError as error:
            return _File(signature=seen, key=before.key if before else None, error=error)
        return _File(signature=seen, key=key)

    def _keys(self) -> tuple[SigningKey, ...]:
        """Return the keys of all files, each once, the newest first."""

        def age(item: tuple[str, _File]) -> tuple[int, str]:
            name, file = item
            return (file.signature[1] // 10**9 if file.signature else 0, name)

        found: dict[str, SigningKey] = {}
        for _, file in sorted(self._files.items(), key=age, reverse=True):
            if file.key is not None:
                found.setdefault(file.key.fingerprint, file.key)
        return tuple(found.values())


def good_keys(files: Iterable[_File]) -> set[str]:
    """Return the fingerprints of the keys that are in these files now."""
    return {file.key.fingerprint for file in files if file.key is not None and file.error is None}


# A new key is often put here before the registry has it, so it is tried again now and then. A try
# costs one call that the API refuses, and no request waits longer than for that call.
DEFERRED_SECONDS = 300.0


class KeyWatcher:
    """Observer of the keys; this one does nothing."""

    def loaded(self, fingerprint: str) -> None:
        """A key is there that was not there before."""

    def rejected(self, error: KeyUnusableError) -> None:
        """A file holds no usable key; the keys in use stay."""

    def states_changed(self, states: Mapping[str, str]) -> None:
        """The state of each key by fingerprint: `active`, `refused` or `standby`."""

    def only_old_works(self, *, works: str, newest: str) -> None:
        """The API accepts an older key and refuses the newest."""

    def newest_works(self, fingerprint: str) -> None:
        """The API accepts the newest key again."""


class KeyRing:
    """The keys of an app; `refresh` and each mint read changed files.

    A key that the API refused is tried last for some minutes, provided that the API accepted
    another one. If the API refuses all keys, that says nothing about any of them (`app_client`).
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
        self._watcher = watcher or KeyWatcher()
        self._keys: tuple[SigningKey, ...] = ()
        self._refused_at: dict[str, float] = {}
        self._active = ""
        self._alarm: tuple[str, str] | None = None
        self._reported: dict[str, str] = {}
        self._read()

    @property
    def fingerprint(self) -> str:
        """The key that signs, without a look for a newer one."""
        return self._active

    @property
    def states(self) -> dict[str, str]:
        """The state of each key, the newest first."""
        return {key.fingerprint: self._state(key.fingerprint) for key in self._keys}

    def refresh(self) -> None:
        """Read changed files, so that a rotation is seen without a mint."""
        self._read()

    def current(self) -> SigningKey:
        """Return the key to sign with."""
        return self.candidates()[0]

    def candidates(self) -> tuple[SigningKey, ...]:
        """Return the keys to try, the best first; there is at least one."""
        self._read()
        return tuple(sorted(self._keys, key=lambda key: self._is_deferred(key.fingerprint)))

    def accepted(self, fingerprint: str) -> None:
        """Record that the API accepted a signature of this key."""
        if not self._has(fingerprint):
            return
        self._refused_at.pop(fingerprint, None)
        self._active = fingerprint
        self._update_alarm(fingerprint)
        self._report_states()

    def refused(self, fingerprint: str) -> None:
        """Record that the API accepted another key, but not this one."""
        if self._has(fingerprint):
            self._refused_at[fingerprint] = self._now()
            self._report_states()

    def _update_alarm(self, accepted: str) -> None:
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
        self._report_states()

    def _has(self, fingerprint: str) -> bool:
        return any(key.fingerprint == fingerprint for key in self._keys)

    def _is_deferred(self, fingerprint: str) -> bool:
        at = self._refused_at.get(fingerprint)
        return at is not None and self._now() - at < DEFERRED_SECONDS

    def _state(self, fingerprint: str) -> str:
        if fingerprint == self._active:
            return "active"
        return "refused" if fingerprint in self._refused_at else "standby"

    def _report_states(self) -> None:
        states = self.states
        if states != self._reported:
            self._reported = states
            self._watcher.states_changed(states)

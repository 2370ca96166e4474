import os
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from icr_proxy.config.models import AppConfig
from icr_proxy.credentials.key_ring import DEFERRED_SECONDS, KeyRing, KeyWatcher
from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.errors import KeyUnusableError
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Clock, app_key_pem, pem_of


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def another_pem() -> str:
    return pem_of(rsa_key())


@cache
def third_pem() -> str:
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def public_pem() -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()


class Heard(KeyWatcher):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.stands: list[dict[str, str]] = []

    def loaded(self, fingerprint: str) -> None:
        self.events.append(f"loaded {fingerprint}")

    def rejected(self, error: KeyUnusableError) -> None:
        self.events.append(f"rejected {error.detail}")

    def states_changed(self, states: Mapping[str, str]) -> None:
        self.stands.append(dict(states))

    def only_old_works(self, *, works: str, newest: str) -> None:
        self.events.append(f"only-old {works} {newest}")

    def newest_works(self, fingerprint: str) -> None:
        self.events.append(f"newest {fingerprint}")


def fingerprint_of(text: str) -> str:
    return parse_signing_key(text, source="test").fingerprint


def put(path: Path, text: str) -> None:
    """Replace a file as editors and tools do."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.pem"
    path.write_text(app_key_pem(), encoding="utf-8")
    return path


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def ring(path: Path, heard: Heard) -> KeyRing:
    return KeyRing(AppConfig(id="app", private_key_file=path), now=Clock(), watcher=heard)


def test_a_key_in_the_configuration_needs_no_file(heard: Heard) -> None:
    ring = KeyRing(
        AppConfig(id="app", private_key=Secret(app_key_pem())), now=Clock(), watcher=heard
    )

    assert ring.current().fingerprint == ring.fingerprint == fingerprint_of(app_key_pem())
    assert heard.events == [f"loaded {ring.fingerprint}"]


def test_a_look_takes_up_a_changed_file_and_a_second_one_says_nothing(
    path: Path, ring: KeyRing, heard: Heard
) -> None:
    put(path, another_pem())
    before = len(heard.events)

    ring.refresh()
    told = heard.events[before:]
    ring.refresh()

    assert told == [f"loaded {fingerprint_of(another_pem())}"]
    assert len(heard.events) == before + 1
    assert ring.fingerprint == fingerprint_of(another_pem())


def test_a_ring_without_a_watcher_works(path: Path) -> None:
    ring = KeyRing(AppConfig(id="app", private_key_file=path), now=Clock())
    put(path, "rubbish")
    ring.current()
    put(path, another_pem())

    assert ring.current().fingerprint == fingerprint_of(another_pem())


def test_an_unusable_key_at_start_is_an_error_that_names_the_source() -> None:
    config = AppConfig(id="app", private_key=Secret("rubbish"))

    with pytest.raises(KeyUnusableError, match=r"app\.private_key holds no PEM block"):
        KeyRing(config, now=Clock())


def test_an_unchanged_file_is_not_read_again(ring: KeyRing) -> None:
    first = ring.current()

    assert ring.current() is first


def test_a_changed_file_is_picked_up_and_told(ring: KeyRing, path: Path, heard: Heard) -> None:
    put(path, another_pem())

    key = ring.current()

    assert key.fingerprint == ring.fingerprint == fingerprint_of(another_pem())
    assert heard.events[1:] == [f"loaded {key.fingerprint}"]


def test_a_file_rewritten_in_place_is_picked_up(ring: KeyRing, path: Path) -> None:
    path.write_text(another_pem(), encoding="utf-8")

    assert ring.current().fingerprint == fingerprint_of(another_pem())


def test_a_copy_that_keeps_its_time_is_picked_up(ring: KeyRing, path: Path) -> None:
    """`cp -p` from a backup: same inode, size and modification time, another key."""
    path.write_text(app_key_pem().ljust(2000), encoding="utf-8")
    ring.current()
    before = path.stat()

    path.write_text(another_pem().ljust(2000), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert ring.current().fingerprint == fingerprint_of(another_pem())


def test_the_swap_that_kubernetes_makes_is_picked_up(tmp_path: Path, heard: Heard) -> None:
    """A mounted secret is a link to a link to a folder; an update swaps the middle link."""
    for version, text in (("..v1", app_key_pem()), ("..v2", another_pem())):
        (tmp_path / version).mkdir()
        (tmp_path / version / "app.pem").write_text(text, encoding="utf-8")
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "app.pem").symlink_to("..data/app.pem")
    config = AppConfig(id="app", private_key_file=tmp_path / "app.pem")
    ring = KeyRing(config, now=Clock(), watcher=heard)

    (tmp_path / "..data_tmp").symlink_to("..v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    assert ring.current().fingerprint == fingerprint_of(another_pem())


def test_a_touched_file_with_the_same_key_is_no_news(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    first = ring.current()
    put(path, app_key_pem())

    assert ring.current() is first
    assert len(heard.events) == 1


def test_a_bad_new_key_leaves_the_old_one_signing_and_is_told_once(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    put(path, "rubbish")

    keys = {ring.current().fingerprint for _ in range(3)}

    assert keys == {fingerprint_of(app_key_pem())}
    assert [event.partition(" ")[0] for event in heard.events] == ["loaded", "rejected"]


def test_every_bad_change_is_told(ring: KeyRing, path: Path, heard: Heard) -> None:
    put(path, "rubbish")
    ring.current()
    put(path, public_pem())
    ring.current()

    assert len(heard.events) == 3
    assert "no PEM block" in heard.events[1]
    assert "a public key" in heard.events[2]


def test_a_good_key_after_a_bad_one_is_taken(ring: KeyRing, path: Path, heard: Heard) -> None:
    put(path, "rubbish")
    ring.current()
    put(path, another_pem())

    assert ring.current().fingerprint == fingerprint_of(another_pem())
    assert heard.events[-1] == f"loaded {fingerprint_of(another_pem())}"


def test_a_vanished_file_leaves_the_key_signing_and_is_told_once(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    path.unlink()

    keys = {ring.current().fingerprint for _ in range(3)}

    assert keys == {fingerprint_of(app_key_pem())}
    assert len(heard.events) == 2
    assert "cannot be read" in heard.events[1]


def test_a_file_that_returns_with_another_key_is_taken(ring: KeyRing, path: Path) -> None:
    path.unlink()
    ring.current()
    path.write_text(another_pem(), encoding="utf-8")

    assert ring.current().fingerprint == fingerprint_of(another_pem())


def test_the_old_key_returning_after_a_bad_one_is_told(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    """Whoever saw the alarm must see its end."""
    put(path, "rubbish")
    ring.current()
    put(path, app_key_pem())
    ring.current()

    assert heard.events[-1] == f"loaded {fingerprint_of(app_key_pem())}"
    assert len(heard.events) == 3


def test_a_key_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    """`--private-key-file <(vault …)`: opening the pipe again would wait for a writer for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    vault = threading.Thread(target=path.write_text, args=(app_key_pem(),))
    vault.start()

    ring = KeyRing(AppConfig(id="app", private_key_file=path), now=Clock())
    vault.join()

    assert ring.current().fingerprint == fingerprint_of(app_key_pem())


def test_a_file_that_becomes_a_pipe_is_not_waited_for(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    path.unlink()
    os.mkfifo(path)

    assert ring.current().fingerprint == fingerprint_of(app_key_pem())
    assert len(heard.events) == 2
    assert "Not a regular file" in heard.events[1]


def test_the_only_key_is_active(ring: KeyRing, heard: Heard) -> None:
    assert heard.stands == [{ring.fingerprint: "active"}]


def test_a_key_that_replaces_the_only_one_is_active(
    ring: KeyRing, path: Path, heard: Heard
) -> None:
    put(path, another_pem())
    ring.current()

    assert heard.stands[1:] == [{fingerprint_of(another_pem()): "active"}]


# -- several keys ---------------------------------------------------------------------------------

NEW, OLD, OLDER = "new", "old", "older"


class Stage:
    """A directory of three keys, and a ring."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heard = Heard()
        self.clock = Clock()
        pems = {NEW: app_key_pem(), OLD: another_pem(), OLDER: third_pem()}
        for age, (name, text) in enumerate(pems.items()):
            self.put(name, text, age=age)
        self.names = {fingerprint_of(text): name for name, text in pems.items()}
        config = AppConfig(id="app", private_keys_dir=directory)
        self.ring = KeyRing(config, now=self.clock, watcher=self.heard)

    def put(self, name: str, text: str, *, age: float) -> None:
        path = self.directory / f"{name}.pem"
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))

    def fingerprint(self, name: str) -> str:
        return next(key for key, value in self.names.items() if value == name)

    def order(self) -> list[str]:
        return [self.names[key.fingerprint] for key in self.ring.candidates()]

    def states(self) -> dict[str, str]:
        shown = self.heard.stands[-1]
        return {self.names[fingerprint]: state for fingerprint, state in shown.items()}

    def alarms(self) -> list[list[str]]:
        told = [event.split() for event in self.heard.events]
        return [
            [kind, *(self.names[each] for each in names)]
            for kind, *names in told
            if kind in ("only-old", "newest")
        ]

    def takes(self, *names: str) -> None:
        """Have the API take these keys and no other, for one call."""
        for name in self.order():
            if name in names:
                self.ring.accepted(self.fingerprint(name))
                return
            self.ring.refused(self.fingerprint(name))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_newest_key_is_tried_first(stage: Stage) -> None:
    assert stage.order() == [NEW, OLD, OLDER]
    assert stage.states() == {NEW: "active", OLD: "standby", OLDER: "standby"}


def test_every_key_is_told_when_it_is_loaded(stage: Stage) -> None:
    assert stage.heard.events == [f"loaded {fingerprint}" for fingerprint in stage.names]


def test_a_refused_key_goes_behind_the_one_that_was_accepted(stage: Stage) -> None:
    stage.takes(OLD)

    assert stage.order() == [OLD, OLDER, NEW]
    assert stage.states() == {NEW: "refused", OLD: "active", OLDER: "standby"}
    assert stage.ring.fingerprint == stage.fingerprint(OLD)


def test_two_refused_keys_go_behind_in_their_order(stage: Stage) -> None:
    stage.takes(OLDER)

    assert stage.order() == [OLDER, NEW, OLD]


def test_a_refused_key_is_tried_again_after_some_minutes(stage: Stage) -> None:
    stage.takes(OLD)

    stage.clock.at += DEFERRED_SECONDS - 1
    before = stage.order()
    stage.clock.at += 1

    assert before == [OLD, OLDER, NEW]
    assert stage.order() == [NEW, OLD, OLDER]
    assert stage.states()[NEW] == "refused"  # until the API takes it


def test_a_key_that_is_taken_after_all_is_in_use(stage: Stage) -> None:
    stage.takes(OLD)
    stage.clock.at += DEFERRED_SECONDS

    stage.takes(NEW, OLD)

    assert stage.order() == [NEW, OLD, OLDER]
    assert stage.states() == {NEW: "active", OLD: "standby", OLDER: "standby"}


def test_a_key_behind_is_tried_when_the_others_are_refused(stage: Stage) -> None:
    """The old key was deleted at the API a moment after the new one had been added."""
    stage.takes(OLD)

    stage.takes(NEW)

    assert stage.order() == [NEW, OLD, OLDER]
    assert stage.states() == {NEW: "active", OLD: "refused", OLDER: "refused"}


def test_that_only_an_old_key_works_is_told_once_and_so_is_its_end(stage: Stage) -> None:
    for _ in range(3):
        stage.takes(OLD)
        stage.clock.at += DEFERRED_SECONDS
    stage.takes(NEW)
    stage.takes(NEW)

    assert stage.alarms() == [["only-old", OLD, NEW], ["newest", NEW]]


def test_that_another_old_key_works_is_told_anew(stage: Stage) -> None:
    stage.takes(OLD)
    stage.takes(OLDER)

    assert stage.alarms() == [["only-old", OLD, NEW], ["only-old", OLDER, NEW]]


def test_an_old_key_that_works_is_no_news_while_the_newest_was_not_refused(stage: Stage) -> None:
    stage.ring.accepted(stage.fingerprint(OLD))

    assert stage.alarms() == []
    assert stage.states() == {NEW: "standby", OLD: "active", OLDER: "standby"}


def test_nothing_changes_when_nothing_is_new(stage: Stage) -> None:
    stage.takes(NEW)
    stage.takes(NEW)

    assert len(stage.heard.stands) == 1


def test_a_key_that_left_leaves_no_trace(stage: Stage) -> None:
    stage.takes(OLD)
    (stage.directory / "new.pem").unlink()

    assert stage.order() == [OLD, OLDER]
    assert stage.states() == {OLD: "active", OLDER: "standby"}


def test_the_end_of_an_alarm_is_told_when_the_refused_key_was_removed(stage: Stage) -> None:
    stage.takes(OLD)
    (stage.directory / "new.pem").unlink()
    stage.takes(OLD)

    assert stage.alarms() == [["only-old", OLD, NEW], ["newest", OLD]]


def test_a_verdict_on_a_key_that_left_is_passed_over(stage: Stage) -> None:
    gone = stage.fingerprint(NEW)
    (stage.directory / "new.pem").unlink()
    stage.order()

    stage.ring.refused(gone)
    stage.ring.accepted(gone)

    assert stage.states() == {OLD: "active", OLDER: "standby"}


def test_a_key_that_is_added_stands_by_until_it_is_taken(stage: Stage) -> None:
    stage.takes(NEW)
    (stage.directory / "older.pem").unlink()
    stage.put(OLDER, third_pem(), age=-60)

    assert stage.order() == [OLDER, NEW, OLD]
    assert stage.states() == {OLDER: "standby", NEW: "active", OLD: "standby"}


def test_an_emptied_directory_leaves_the_keys_signing(stage: Stage) -> None:
    for path in stage.directory.iterdir():
        path.unlink()

    assert stage.order() == stage.order() == [NEW, OLD, OLDER]
    assert [event.partition(" ")[0] for event in stage.heard.events[3:]] == ["rejected"]


def test_a_directory_without_a_usable_key_at_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "app.pub.pem").write_text(public_pem(), encoding="utf-8")

    with pytest.raises(KeyUnusableError, match=r"holds no usable key: .*holds a public key"):
        KeyRing(AppConfig(id="app", private_keys_dir=tmp_path), now=Clock())


def test_a_ring_of_several_keys_works_without_a_watcher(stage: Stage) -> None:
    ring = KeyRing(AppConfig(id="app", private_keys_dir=stage.directory), now=Clock())
    new, old, _ = (key.fingerprint for key in ring.candidates())
    ring.refused(new)
    ring.accepted(old)
    ring.refused(old)
    ring.accepted(new)
    (stage.directory / "bad.pem").write_text("rubbish", encoding="utf-8")

    assert ring.current().fingerprint == new

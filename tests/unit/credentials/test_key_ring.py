import os
import socket
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.config.models import AppConfig
from icr_proxy.credentials.key_ring import (
    FILES_MOST,
    DirectoryKeySource,
    FileKeySource,
    InlineKeySource,
    KeyReading,
    load_keys,
    source_of,
)
from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.errors import KeyUnusableError
from icr_proxy.redaction import Secret
from tests.support.app_fixture import app_key_pem, pem_of

AT = 1_700_000_000


@cache
def key(number: int) -> str:
    """Give one of a few keys as PEM."""
    if number == 0:
        return app_key_pem()
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@cache
def fingerprint(number: int) -> str:
    return parse_signing_key(key(number), source="test").fingerprint


class Stage:
    """A directory, and its source."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = DirectoryKeySource(directory)

    def put(self, name: str, text: str, *, at: float = AT) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(0, int(at * 1e9)))
        return path

    def read(self) -> KeyReading:
        reading = self.source.read()
        assert reading is not None
        return reading

    def keys(self) -> list[int]:
        """Say by their numbers which keys there are, the best first."""
        return [number_of(each.fingerprint) for each in self.read().keys]

    def news(self) -> list[int]:
        return [number_of(each.fingerprint) for each in self.read().news]

    def complaints(self) -> list[str]:
        return [error.detail for error in self.read().rejected]


def number_of(found: str) -> int:
    return next(number for number in range(4) if fingerprint(number) == found)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# -- which source ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (AppConfig(id="a", private_key=Secret("x")), InlineKeySource),
        (AppConfig(id="a", private_key_file=Path("/x")), FileKeySource),
        (AppConfig(id="a", private_keys_dir=Path("/x")), DirectoryKeySource),
    ],
    ids=["text", "file", "directory"],
)
def test_the_configuration_names_the_source(app: AppConfig, kind: type[object]) -> None:
    assert type(source_of(app)) is kind


def test_a_text_is_read_once() -> None:
    source = InlineKeySource(key(0))

    first = source.read()

    assert first is not None
    assert [each.fingerprint for each in first.keys] == [fingerprint(0)]
    assert source.read() is None


def test_keys_are_loaded_with_what_is_wrong_beside_them(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put("b.pem", "rubbish")

    reading = load_keys(AppConfig(id="a", private_keys_dir=stage.directory))

    assert (len(reading.keys), len(reading.rejected)) == (1, 1)


def test_without_a_usable_key_there_is_an_error() -> None:
    with pytest.raises(KeyUnusableError, match="no PEM block"):
        load_keys(AppConfig(id="a", private_key=Secret("rubbish")))


# -- the order ------------------------------------------------------------------------------------


def test_the_newest_file_is_the_best(stage: Stage) -> None:
    stage.put("a.pem", key(0), at=AT)
    stage.put("b.pem", key(1), at=AT + 60)
    stage.put("c.pem", key(2), at=AT - 60)

    assert stage.keys() == [1, 0, 2]


def test_of_equally_old_files_the_last_by_name_is_the_best(stage: Stage) -> None:
    """Kubernetes writes all files of a secret anew within a moment, in any order."""
    stage.put("2026-11.pem", key(0), at=AT + 0.1)
    stage.put("2026-12.pem", key(1), at=AT)
    stage.put("2026-10.pem", key(2), at=AT + 0.2)

    assert stage.keys() == [1, 0, 2]


def test_one_key_in_two_files_counts_once_as_the_newer(stage: Stage) -> None:
    stage.put("a.pem", key(0), at=AT)
    stage.put("b.pem", key(1), at=AT + 1)
    stage.put("c.pem", key(0), at=AT + 2)

    assert stage.keys() == [0, 1]


# -- what is no key -------------------------------------------------------------------------------


def test_hidden_files_and_directories_are_passed_over(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put(".draft.pem", "rubbish")
    (stage.directory / "..2026_11_24").mkdir()
    (stage.directory / "lost+found").mkdir()

    reading = stage.read()

    assert (len(reading.keys), reading.rejected) == (1, ())


def test_a_link_to_nothing_is_passed_over(stage: Stage) -> None:
    """In the middle of a swap that Kubernetes makes there may be one."""
    stage.put("a.pem", key(0))
    (stage.directory / "b.pem").symlink_to("..data/b.pem")

    assert stage.complaints() == []


def be_rubbish(path: Path) -> None:
    path.write_text("rubbish", encoding="utf-8")


def be_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def be_a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(path))


def be_a_circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (be_rubbish, "holds no PEM block"),
        (be_a_pipe, "cannot be read: Not a regular file"),
        (be_a_socket, "cannot be read: No such device or address"),
        (be_a_circle, "cannot be read: Too many levels of symbolic links"),
    ],
    ids=["rubbish", "pipe", "socket", "circle"],
)
def test_a_bad_file_is_told_once_and_the_others_are_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: object, found: str
) -> None:
    monkeypatch.chdir(stage.directory)  # the path of a socket may not be long
    stage.put("a.pem", key(0))
    assert callable(make)
    make(Path("b.pem"))

    reading = stage.read()
    stage.put("c.pem", key(1))

    assert [number_of(each.fingerprint) for each in reading.keys] == [0]
    (complaint,) = [error.detail for error in reading.rejected]
    assert complaint.startswith(f"app.private_keys_dir {stage.directory}/b.pem {found}")
    assert stage.complaints() == []


def test_a_bad_file_that_changes_is_told_again(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put("b.pem", "rubbish")
    stage.read()
    stage.put("b.pem", "other rubbish")

    assert len(stage.complaints()) == 1


def test_a_file_that_turns_bad_leaves_its_key_in_use(stage: Stage) -> None:
    stage.put("a.pem", key(0), at=AT)
    stage.put("b.pem", key(1), at=AT + 1)
    stage.read()
    stage.put("a.pem", key(0)[:800], at=AT)

    reading = stage.read()

    assert [number_of(each.fingerprint) for each in reading.keys] == [1, 0]
    assert (len(reading.rejected), reading.news) == (1, ())


# -- what is new ----------------------------------------------------------------------------------


def test_at_first_all_is_new_and_then_nothing(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put("b.pem", key(1))

    assert stage.news() == [1, 0]
    assert stage.source.read() is None


def test_a_file_that_is_added_is_new(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.read()
    stage.put("b.pem", key(1))

    assert stage.news() == [1]


@pytest.mark.parametrize("name", ["a.pem", "b.pem"], ids=["touched", "copied"])
def test_a_key_that_was_there_is_not_new(stage: Stage, name: str) -> None:
    stage.put("a.pem", key(0))
    stage.read()
    stage.put(name, key(0), at=AT + 5)

    assert stage.news() == []


def test_a_file_that_is_removed_takes_its_key_with_it(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put("b.pem", key(1)).unlink()
    stage.read()
    stage.put("b.pem", key(1))
    stage.read()
    (stage.directory / "a.pem").unlink()

    assert stage.keys() == [1]


def test_a_file_that_is_good_again_is_news_even_with_the_same_key(stage: Stage) -> None:
    """Whoever saw the alarm must see its end."""
    stage.put("a.pem", key(0))
    stage.put("b.pem", key(1))
    stage.read()
    stage.put("a.pem", "rubbish")
    stage.read()
    stage.put("a.pem", key(0), at=AT + 1)

    assert stage.news() == [0]


def test_a_key_kept_from_a_bad_file_is_no_news_when_another_file_changes(stage: Stage) -> None:
    stage.put("a.pem", key(0))
    stage.put("b.pem", key(1))
    stage.read()
    stage.put("a.pem", "rubbish")
    stage.read()
    stage.put("c.pem", key(2), at=AT + 1)

    assert stage.news() == [2]


def swap(directory: Path, version: str, files: dict[str, str]) -> None:
    """Write a mounted secret anew, as the kubelet does (its AtomicWriter)."""
    real = directory / f"..{version}"
    real.mkdir()
    for name, text in files.items():
        (real / name).write_text(text, encoding="utf-8")
    (directory / "..data_tmp").symlink_to(real.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for path in directory.iterdir():
        if not path.name.startswith("..") and path.name not in files:
            path.unlink()
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


def test_the_swap_that_kubernetes_makes_is_picked_up(stage: Stage) -> None:
    swap(stage.directory, "v1", {"1.pem": key(0), "2.pem": key(1)})
    before = stage.keys()
    swap(stage.directory, "v2", {"2.pem": key(1), "3.pem": key(2)})
    after = stage.read()

    assert set(before) == {0, 1}
    assert {number_of(each.fingerprint) for each in after.keys} == {1, 2}
    assert [number_of(each.fingerprint) for each in after.news] == [2]


# -- when there is nothing ------------------------------------------------------------------------


def test_an_empty_directory_is_told(stage: Stage) -> None:
    (complaint,) = stage.complaints()

    assert complaint.startswith(f"app.private_keys_dir {stage.directory} holds no usable key")
    assert "an RSA private key as PEM" in complaint
    assert stage.source.read() is None


def test_a_directory_of_bad_files_is_told_with_each_of_them(stage: Stage) -> None:
    stage.put("a.pem", "rubbish")
    stage.put("b.pem", "")

    *each, last = stage.complaints()

    assert len(each) == 2
    assert last.startswith(f"app.private_keys_dir {stage.directory} holds no usable key: ")
    assert "no PEM block" in last


def test_an_emptied_directory_is_told_once_and_its_end_as_well(stage: Stage) -> None:
    path = stage.put("a.pem", key(0))
    stage.read()
    path.unlink()
    emptied = stage.read()
    again = stage.source.read()
    stage.put("a.pem", key(0))

    assert (emptied.keys, len(emptied.rejected), again) == ((), 1, None)
    assert stage.news() == [0]


def test_a_directory_that_is_gone_for_a_while_is_told_once_and_its_end_as_well(
    stage: Stage,
) -> None:
    stage.put("a.pem", key(0))
    stage.read()
    elsewhere = stage.directory.with_name("elsewhere")
    stage.directory.rename(elsewhere)
    gone = stage.read()
    again = stage.source.read()
    elsewhere.rename(stage.directory)

    assert "cannot be read: No such file or directory" in gone.rejected[0].detail
    assert again is None
    assert stage.news() == [0]


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    path = tmp_path / "app.pem"
    path.write_text(key(0), encoding="utf-8")

    with pytest.raises(KeyUnusableError, match="cannot be read: Not a directory"):
        load_keys(AppConfig(id="a", private_keys_dir=path))


def test_a_directory_of_too_many_files_is_the_wrong_one(stage: Stage) -> None:
    for number in range(FILES_MOST + 1):
        stage.put(f"{number}.txt", "")

    (complaint,) = stage.complaints()

    assert "holds over 100 files" in complaint

import copy
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from icr_proxy.errors import StartError
from icr_proxy.redaction import SECRET_MOST, Secret, SecretFile, read_secret

PLANTED = "crs_do-not-show"

SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "f-string": lambda secret: f"{secret}",
    "format spec": lambda secret: f"{secret:>40}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways
    "in a list": lambda secret: str([secret]),
    "json": lambda secret: msgspec.json.encode(secret, enc_hook=str).decode(),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_no_way_of_showing_gives_the_text(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(PLANTED))

    assert PLANTED not in shown
    assert "Secret" in shown


@pytest.mark.parametrize("keep", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_is_not_serialised(keep: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        keep(Secret(PLANTED))

    assert PLANTED not in str(caught.value)


def test_a_secret_has_no_dictionary_to_dump() -> None:
    assert not hasattr(Secret(PLANTED), "__dict__")


def test_reveal_gives_the_text() -> None:
    assert Secret(PLANTED).reveal() == PLANTED


def test_the_fingerprint_is_the_beginning_of_the_sha256() -> None:
    assert Secret("abc").fingerprint == "ba7816bf8f01"


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        pytest.param(Secret(PLANTED), True, id="same"),
        pytest.param(Secret("another"), False, id="other"),
        pytest.param(Secret(""), False, id="empty"),
        pytest.param(PLANTED, False, id="plain text is not a secret"),
        pytest.param(None, False, id="nothing"),
    ],
)
def test_secrets_are_equal_when_their_texts_are(other: object, equal: bool) -> None:  # noqa: FBT001
    assert (Secret(PLANTED) == other) is equal


def test_equal_secrets_hash_alike() -> None:
    assert len({Secret(PLANTED), Secret(PLANTED), Secret("another")}) == 2


@pytest.mark.parametrize(("text", "truth"), [("", False), ("x", True)], ids=["empty", "full"])
def test_an_empty_secret_is_false(text: str, truth: bool) -> None:  # noqa: FBT001
    assert bool(Secret(text)) is truth


def test_bytes_that_are_no_text_can_be_compared_and_fingerprinted() -> None:
    """An environment variable may hold any bytes; Python hands them over as surrogates."""
    odd = Secret("\udcff\ud800")

    assert odd == Secret("\udcff\ud800")
    assert len(odd.fingerprint) == 12


KEY = "webhooks.secret_file"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"first\n")
    return path


def change(file: Path, content: bytes) -> None:
    """Write as editors and mounted secrets do: a new file in the place of the old one."""
    draft = file.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(file)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"s", "s"),
        (b"s\n", "s"),
        (b"s\r\n", "s"),
        (b"s t\n", "s t"),
        (b"first\nsecond\n", "first\nsecond"),
        (b"\xef\xbb\xbfs\n", "s"),
        ("\ufeffs\r\n".encode("utf-16-le"), "s"),
        ("\ufeffs\r\n".encode("utf-16-be"), "s"),
        ("\ufeffschlüssel\n".encode("utf-32-le"), "schlüssel"),
        (b'say "s"', 'say "s"'),
        (b"'", "'"),
        ("schlüssel\n".encode(), "schlüssel"),
        (b"x" * SECRET_MOST, "x" * SECRET_MOST),
    ],
)
def test_one_line_break_at_the_end_is_not_part_of_it(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)

    assert read_secret(path, key=KEY).reveal() == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\r\n", "is empty"),
        (b"x" * (SECRET_MOST + 1), "is over 4 KiB"),
        (b"\xff\xfe", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b" \t \n", "is empty"),
        (b"\xff\xfd", "is not UTF-8 text"),
        ("schlüssel".encode("latin-1"), "is not UTF-8 text"),
        ("schlüssel".encode("utf-16-le"), "is not UTF-8 text"),
        ("planted".encode("utf-16-le"), "holds NUL characters"),
        (b"planted\0", "holds NUL characters"),
        (b"planted \n", "begins or ends with a blank"),
        (b"planted\n\n", "begins or ends with a blank"),
        (b"\tplanted", "begins or ends with a blank"),
        ("planted\u200b".encode(), "cannot be printed"),
        (b"plan\x1bted", "cannot be printed"),
        (b'"planted"\n', "is in quotes"),
        (b"'planted'\r\n", "is in quotes"),
        (b'\xef\xbb\xbf"planted" \n', "is in quotes"),
        (b'""', "is in quotes"),
    ],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)

    with pytest.raises(StartError, match=words) as caught:
        read_secret(path, key=KEY)

    assert caught.value.detail.startswith(f"{KEY}: {path} ")
    assert "planted" not in caught.value.detail


@pytest.mark.parametrize("found", ["directory", "pipe nobody writes into", "not ours to read"])
def test_what_is_no_readable_file_is_refused_and_not_waited_for(tmp_path: Path, found: str) -> None:
    path = tmp_path / "s"
    if found == "directory":
        path.mkdir()
    elif found == "not ours to read":
        path.symlink_to("/proc/self/mem")
    else:
        os.mkfifo(path)

    with pytest.raises(StartError, match="cannot be read: "):
        read_secret(path, key=KEY, patience=0.01)


def test_a_pipe_gives_its_secret_once_at_start(tmp_path: Path) -> None:
    path = tmp_path / "s"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"first\n",))
    writer.start()

    secret = SecretFile(path, key=KEY)
    writer.join()

    assert [secret().reveal() for _ in range(2)] == ["first", "first"]


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        SecretFile(tmp_path / "nothing", key=KEY)


def test_a_changed_file_is_read_again(file: Path) -> None:
    secret = SecretFile(file, key=KEY)
    before = secret().reveal()

    change(file, b"second\n")

    assert (before, secret().reveal()) == ("first", "second")


def test_a_file_that_is_as_it_was_is_not_read_again(file: Path) -> None:
    secret = SecretFile(file, key=KEY)
    first = secret()

    assert secret() is first


@pytest.mark.parametrize("content", [b"", b"\xff", None], ids=["empty", "binary", "gone"])
def test_a_file_that_has_become_unusable_changes_nothing_and_is_told_once(
    file: Path, content: bytes | None
) -> None:
    told: list[StartError] = []
    secret = SecretFile(file, key=KEY, rejected=told.append)
    if content is None:
        file.unlink()
    else:
        change(file, content)

    found = [secret().reveal() for _ in range(3)]

    assert found == ["first"] * 3
    assert len(told) == 1


def test_a_file_that_came_back_is_read(file: Path) -> None:
    secret = SecretFile(file, key=KEY)
    file.unlink()
    secret()

    change(file, b"second\n")

    assert secret().reveal() == "second"


def test_a_swapped_link_is_noticed(file: Path, tmp_path: Path) -> None:
    """Kubernetes changes a mounted secret by swapping a link."""
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(file)
    other.write_bytes(b"second")
    secret = SecretFile(link, key=KEY)

    swap = tmp_path / "swap"
    swap.symlink_to(other)
    swap.replace(link)

    assert secret().reveal() == "second"


def test_a_copy_that_keeps_size_and_time_is_noticed(file: Path, tmp_path: Path) -> None:
    """`cp -p` sets the modification time back; the change time tells."""
    secret = SecretFile(file, key=KEY)
    other = tmp_path / "other"
    other.write_bytes(b"other\n")
    shutil.copystat(file, other)

    shutil.copy2(other, file)

    assert secret().reveal() == "other"

from pathlib import Path

import pytest

from proxy.errors import StartError
from proxy.secretfile import MOST, SecretFile, read_secret

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
        (b"s\n\n", "s\n"),
        (b" s \n", " s "),
        ("schlüssel\n".encode(), "schlüssel"),
        (b"x" * MOST, "x" * MOST),
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
        (b"x" * (MOST + 1), "is over 4 KiB"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
    ids=["nothing", "a line break", "another", "too long", "binary"],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)

    with pytest.raises(StartError, match=words) as caught:
        read_secret(path, key=KEY)

    assert caught.value.detail.startswith(f"{KEY}: {path} ")


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

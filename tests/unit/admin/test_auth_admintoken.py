import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from icr_proxy.admin.auth import AdminToken
from icr_proxy.errors import StartError


def test_without_a_file_there_is_no_token() -> None:
    token = AdminToken(None)
    token.issue()

    assert token() is None
    token.withdraw()


def test_the_token_is_in_its_file_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    before = os.umask(0)
    try:
        token = AdminToken(file)
        token.issue()
    finally:
        os.umask(before)

    secret = token()
    assert secret is not None
    assert file.read_text() == secret.reveal() + "\n"
    assert len(secret.reveal()) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_each_start_makes_another_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    texts = set()
    for _ in range(2):
        AdminToken(file).issue()
        texts.add(file.read_text())

    assert len(texts) == 2


def test_a_file_that_others_could_read_is_replaced_and_not_filled(tmp_path: Path) -> None:
    """Whoever has it open would read along."""
    file = tmp_path / "token"
    file.write_text("old")
    file.chmod(0o644)

    with file.open() as spy:
        AdminToken(file).issue()

        assert spy.read() == "old"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "nowhere" / "token")

    with pytest.raises(StartError, match=r"admin\.token_file"):
        token.issue()


def test_a_directory_in_its_place_stops_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()

    with pytest.raises(StartError, match=r"admin\.token_file") as caught:
        AdminToken(tmp_path / "token").issue()

    assert [each.name for each in tmp_path.iterdir()] == ["token"]
    assert "token.reveal" not in str(caught.value)


def test_at_the_end_the_file_is_taken_away(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()

    token.withdraw()

    assert list(tmp_path.iterdir()) == []
    assert token() is not None, "until the port is closed, it must not be open to everybody"


def test_the_file_of_another_proxy_stays(tmp_path: Path) -> None:
    one, other = AdminToken(tmp_path / "token"), AdminToken(tmp_path / "token")
    one.issue()
    other.issue()

    one.withdraw()

    secret = other()
    assert secret is not None
    assert (tmp_path / "token").read_text() == secret.reveal() + "\n"


def test_a_file_that_has_gone_is_no_error(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()
    (tmp_path / "token").unlink()

    token.withdraw()


def test_the_token_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "token").symlink_to("precious")

    AdminToken(tmp_path / "token").issue()

    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "token").is_symlink()


def test_a_pipe_in_its_place_does_not_keep_the_proxy_from_ending(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()
    (tmp_path / "token").unlink()
    os.mkfifo(tmp_path / "token")

    token.withdraw()

    assert (tmp_path / "token").is_fifo()


@pytest.mark.parametrize("issue", [AdminToken.issue, AdminToken.try_to_issue])
def test_no_file_takes_the_place_of_a_pipe_or_a_device(
    tmp_path: Path, issue: Callable[[AdminToken], None]
) -> None:
    """As root, `token_file: /dev/null` would otherwise replace it for the whole machine."""
    os.mkfifo(tmp_path / "token")

    with pytest.raises(StartError, match="cannot be written: Not a regular file"):
        issue(AdminToken(tmp_path / "token"))

    assert [each.is_fifo() for each in tmp_path.iterdir()] == [True]

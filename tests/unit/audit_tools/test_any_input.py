"""Whatever stands in the files of a trail, every command ends with 0, 1 or 2, and not by itself."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from icr_proxy.audit.chain import ChainHead, MacKey
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools import check_segment, query
from icr_proxy.cli.main import commands
from icr_proxy.errors import StartError
from tests.support.audit_fixture import KEY, seal
from tests.support.audit_trails import write_trail

TIMES = int(os.environ.get("ICR_TEST_GARBAGE", "25"))
COMMANDS = (
    ("verify", "--key-file", "{key}"),
    ("verify", "--json", "--head", "7:aaaaaaaaaaaa"),
    ("query", "--intents", "--limit", "0"),
    ("query", "--json", "--since", "2020-01-01", "--status", "2xx", "--operation", "v1.*"),
    ("query", "--sql", "SELECT kind, count(*) FROM audit GROUP BY ALL"),
    ("report", "--format", "text"),
    ("report", "--format", "csv"),
    ("report", "--format", "html"),
    ("report", "--format", "markdown"),
    ("export", "--format", "har"),
    ("export", "--format", "har", "--no-redact"),
    ("export", "--format", "csv", "--no-redact"),
    ("export", "--format", "parquet", "--out", "{out}"),
    ("suggest-policy",),
)
ODD_VALUES = (
    b"null", b"true", b"-1", b"1e999", b"1e308", b"99999999999999999999999", b'""', b"[]", b"{}",
    b'"\\ud800"', b'"\\u0000\\u001b[31m"', b'"9999-99-99T99:99:99"', b'"0001-01-01T00:00:00"',
    b"[" * 5000 + b"]" * 5000, b'"' + b"x" * 70_000 + b'"', b"NaN", b'"=cmd|1"', b'"\xff\xfe"',
)  # fmt: skip


def ends_well(paths: list[Path], *, key: Path, out: Path, but: str = "") -> None:
    """Give these files to all commands."""
    for name, *words in COMMANDS:
        if but in words:
            continue
        filled = [word.format(key=key, out=out) for word in words]
        result = CliRunner().invoke(commands, ["audit", name, *map(str, paths), *filled])

        assert isinstance(result.exception, SystemExit | StartError | None), (
            name,
            words,
            result.exc_info,
        )
        assert result.exit_code in (0, 1, 2), (name, words, result.output)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    directory = tmp_path / "trail"
    write_trail(directory, files=2, records=5)
    (tmp_path / "key").write_text(KEY.reveal())
    return directory, tmp_path / "key"


def garble(data: bytes, chance: random.Random) -> bytes:
    """Spoil a file in one of the ways of people, disks and attackers."""
    at, other = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    lines = data.split(b"\n")
    line = chance.randrange(len(lines))
    odd = [*lines[:line], b"\n".join([chance.choice(ODD_VALUES)] * 3), *lines[line:]]
    changed = [*lines[:line], odd_value(lines[line], chance), *lines[line + 1 :]]
    return chance.choice(
        [
            data[:at] + chance.randbytes(chance.randrange(40)) + data[other:],
            data[:at] + b"\0" * (other - at) + data[other:],
            data[at:] + data[:at],
            data[:at] + data[other:],
            b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
            data.decode("latin-1").encode("utf-16"),
            b"\n".join(odd),
            b"\n".join(changed),
            b"\n".join(changed),
        ]
    )


def odd_value(line: bytes, chance: random.Random) -> bytes:
    """Give some members of a record values that the writer never gives them."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    names = chance.sample(sorted(record), k=min(len(record), chance.randint(1, 3)))
    names += chance.sample(["intent", "trail", "before", "torn_file", "torn_bytes"], k=1)
    kind = chance.choice([record["kind"], "repair", "rewound", "pruned", "segment", "gap"])
    members = {name: json.dumps(value).encode() for name, value in record.items()}
    members["kind"] = json.dumps(kind).encode()
    members |= {name: chance.choice(ODD_VALUES) for name in names}
    return b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), v) for n, v in members.items())


@pytest.mark.parametrize("seed", range(TIMES))
def test_no_garbled_trail_ends_a_command_in_a_traceback(
    place: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    directory, key = place
    chance = random.Random(seed)
    path = chance.choice(list_segments(directory))
    path.write_bytes(garble(path.read_bytes(), chance))

    ends_well([directory], key=key, out=tmp_path / "out")


@pytest.mark.parametrize("seed", range(TIMES))
def test_records_of_any_kind_with_good_hashes_end_no_command_in_a_traceback(
    place: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    """Whoever has the key, or where there is none, can write whatever is JSON."""
    directory, key = place
    chance = random.Random(seed)
    path = list_segments(directory)[0]
    lines = [odd_value(line, chance) for line in path.read_bytes().splitlines()]
    path.write_bytes(resealed(lines))

    ends_well([directory], key=key, out=tmp_path / "out")


def resealed(lines: list[bytes]) -> bytes:
    head, mac_key, made = ChainHead(), MacKey(KEY.reveal().encode()), []
    for line in lines:
        start, end = line.find(b'"kind"'), line.rfind(b',"hash":"')
        body = line[start:end] if 0 <= start < end else b'"kind":"odd"'
        fresh, head = seal(b"{%b}" % body, after=head, mac_key=mac_key)
        made.append(fresh + b"\n")
    return b"".join(made)


def of_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def loop(path: Path) -> None:
    path.symlink_to(path)


def unreadable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


INPUTS = [
    pytest.param(of_bytes(b""), id="empty"),
    pytest.param(of_bytes(b"\n"), id="an empty line"),
    pytest.param(of_bytes(b"\0" * 100_000), id="zeros"),
    pytest.param(of_bytes(b"\xff\xfe" * 500), id="binary"),
    pytest.param(of_bytes(b"[" * 200_000 + b"\n"), id="deep"),
    pytest.param(of_bytes(b'{"kind":' * 100_000 + b"\n"), id="deep objects"),
    pytest.param(of_bytes(b'{"seq":' + b"9" * 5000 + b"}\n"), id="a long number"),
    pytest.param(of_bytes(b"1\nnull\n[]\n{}\n"), id="JSON of other kinds"),
    pytest.param(of_bytes(b'{"a":"' + b"x" * 2_000_000 + b'"}\n'), id="a long line"),
    pytest.param(Path.mkdir, id="a directory"),
    pytest.param(os.mkfifo, id="a pipe"),
    pytest.param(device, id="a device"),
    pytest.param(loop, id="a link to itself"),
    pytest.param(lambda path: path.symlink_to("/nowhere"), id="a dangling link"),
    pytest.param(unreadable, id="not readable"),
    pytest.param(sparse, id="larger than the memory"),
]


@pytest.mark.parametrize("make", INPUTS)
def test_no_file_ends_a_command_in_a_traceback(
    place: tuple[Path, Path],
    tmp_path: Path,
    make: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_segment, "LINE_MOST", 1 << 20)
    monkeypatch.setattr(query, "LINE_MOST", 1 << 20)
    directory, key = place
    given = tmp_path / "given"
    make(given)
    given.rename(directory / "audit-0000000000000007-20260921T141421Z.jsonl")
    make(given)

    ends_well([directory], key=key, out=tmp_path / "out", but="--sql" if make is sparse else "")
    ends_well([given], key=key, out=tmp_path / "out", but="--sql" if make is sparse else "")
    tailed = CliRunner().invoke(commands, ["audit", "tail", str(directory), "--no-follow"])
    assert tailed.exit_code in (0, 1)
    assert tailed.exception is None or isinstance(tailed.exception, SystemExit)
    given.lstat()
    assert stat.S_ISDIR(directory.stat().st_mode)


@pytest.mark.parametrize("make", INPUTS)
def test_no_key_and_no_anchor_ends_a_command_in_a_traceback(
    place: tuple[Path, Path], tmp_path: Path, make: Callable[[Path], object]
) -> None:
    directory, key = place
    given = tmp_path / "given"
    make(given)
    if make in (os.mkfifo, device):  # a key may come through a pipe
        given = key

    for words in (("--key-file", given), ("--key-file", key, "--anchor-file", given)):
        result = CliRunner().invoke(commands, ["audit", "verify", str(directory), *map(str, words)])
        assert result.exit_code in (0, 1, 2)
        assert isinstance(result.exception, SystemExit | None), result.exc_info

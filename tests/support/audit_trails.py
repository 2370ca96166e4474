"""Small trails to verify, and what somebody may do to them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icr_proxy.audit.chain import ChainHead, MacKey
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.check_chain import check_chain
from icr_proxy.audit_tools.check_segment import check_segment
from icr_proxy.audit_tools.findings import TrailVerdict, WitnessedRecord
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import KEY, read_of, record_of, seal, writer_in

Files = list[tuple[str, bytes]]
KEYS = {KEY.fingerprint: KEY.reveal().encode()}
STRANGER = MacKey(b"somebody else's key, as long as it has to be")


def write_trail(
    directory: Path, *, files: int = 3, records: int = 8, key: Secret | None = KEY
) -> ChainHead:
    """Write a trail with the writer of the product; give its head."""
    clock = Clock(1_790_000_000.0)
    writer = writer_in(directory, now=clock, segment_age=60.0, key=key)
    for _ in range(files):
        for number in range(records - 2):
            writer.append([read_of(number) if number % 3 else record_of()], sync=False)
        clock.at += 60
    writer.close()
    return writer.head


def read_trail(directory: Path) -> Files:
    """Read its files."""
    return [(path.name, path.read_bytes()) for path in list_segments(directory)]


def verdict_on(files: Files, *, head: ChainHead | None = None, **facts: Any) -> TrailVerdict:
    """Verify files in memory."""
    witnesses = (
        [WitnessedRecord(head.seq, head.hash[:12], "the metrics")] if head is not None else []
    )
    wanted = frozenset(witness.seq for witness in witnesses)
    checked = [
        check_segment(name, io.BytesIO(data), keys=KEYS, wanted=wanted) for name, data in files
    ]
    return check_chain(checked, keys=KEYS.keys(), witnesses=witnesses, **facts)


# -- what somebody may do -------------------------------------------------------------------------


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def flip_a_bit(files: Files, chance: random.Random) -> Files:
    at = chance.randrange(len(files))
    name, data = files[at]
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return [*files[:at], (name, bytes(changed)), *files[at + 1 :]]


def _with_lines(
    files: Files, chance: random.Random, change: Callable[[list[bytes], random.Random], None]
) -> Files:
    at = chance.randrange(len(files))
    name, data = files[at]
    lines = _lines(data)
    change(lines, chance)
    return [*files[:at], (name, b"".join(lines)), *files[at + 1 :]]


def remove_records(files: Files, chance: random.Random) -> Files:
    def change(lines: list[bytes], chance: random.Random) -> None:
        start = chance.randrange(len(lines))
        del lines[start : start + chance.randint(1, 3)]

    return _with_lines(files, chance, change)


def repeat_a_record(files: Files, chance: random.Random) -> Files:
    def change(lines: list[bytes], chance: random.Random) -> None:
        lines.insert(chance.randint(0, len(lines)), chance.choice(lines))

    return _with_lines(files, chance, change)


def swap_records(files: Files, chance: random.Random) -> Files:
    def change(lines: list[bytes], chance: random.Random) -> None:
        one, other = chance.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]

    return _with_lines(files, chance, change)


def truncate_a_file(files: Files, chance: random.Random) -> Files:
    at = chance.randrange(len(files))
    name, data = files[at]
    return [*files[:at], (name, data[: chance.randrange(len(data))]), *files[at + 1 :]]


def remove_a_file(files: Files, chance: random.Random) -> Files:
    at = chance.randrange(len(files))
    return [*files[:at], *files[at + 1 :]]


def repeat_a_file(files: Files, chance: random.Random) -> Files:
    name, data = chance.choice(files)
    return [*files, (name.replace("T14", "T15"), data)]


def swap_files(files: Files, chance: random.Random) -> Files:
    one, other = chance.sample(range(len(files)), 2)
    swapped = list(files)
    swapped[one] = (files[one][0], files[other][1])
    swapped[other] = (files[other][0], files[one][1])
    return swapped


def insert_a_line(files: Files, chance: random.Random) -> Files:
    def change(lines: list[bytes], chance: random.Random) -> None:
        at = chance.randint(0, len(lines))
        made = chance.choice([b"\n", b"{}\n", b"x" * chance.randint(1, 300) + b"\n"])
        lines.insert(at, made)

    return _with_lines(files, chance, change)


def _forged(files: Files, chance: random.Random, *, mac_key: MacKey | None) -> Files:
    """Change a record and make the chain anew from there on, as somebody without the key would."""
    at = chance.randrange(len(files))
    place = chance.randrange(len(_lines(files[at][1])))
    made, head = [], ChainHead()
    for number, (name, data) in enumerate(files):
        lines = []
        for index, line in enumerate(_lines(data)):
            start = line.index(b'"kind"')
            body = b"{" + line[start : line.rindex(b',"hash":"')] + b"}"
            if (number, index) < (at, place):
                lines.append(line)
                head = ChainHead(head.seq + 1, line.split(b'"hash":"')[1][:64].decode())
                continue
            if (number, index) == (at, place):
                body = body[:-1] + b',"more":1}'
            fresh, head = seal(body, after=head, mac_key=mac_key)
            lines.append(fresh + b"\n")
        made.append((name, b"".join(lines)))
    return made


def forge_with_another_key(files: Files, chance: random.Random) -> Files:
    return _forged(files, chance, mac_key=STRANGER)


def forge_without_a_key(files: Files, chance: random.Random) -> Files:
    return _forged(files, chance, mac_key=None)


def forge_everything_under_another_key(files: Files, chance: random.Random) -> Files:
    """Also the headers say that the key is another one."""
    named = [(n, d.replace(KEY.fingerprint.encode(), b"0" * 12)) for n, d in files]
    made, head = [], ChainHead()
    for name, data in named:
        lines = []
        for line in _lines(data):
            body = b"{" + line[line.index(b'"kind"') : line.rindex(b',"hash":"')] + b"}"
            fresh, head = seal(body, after=head, mac_key=STRANGER)
            lines.append(fresh + b"\n")
        made.append((name, b"".join(lines)))
    del chance
    return made


MUTATIONS = (
    flip_a_bit,
    remove_records,
    repeat_a_record,
    swap_records,
    truncate_a_file,
    remove_a_file,
    repeat_a_file,
    swap_files,
    insert_a_line,
    forge_with_another_key,
    forge_without_a_key,
    forge_everything_under_another_key,
)

"""What auditors buy: whatever was done to a trail is found, and nothing else is."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from icr_proxy.audit.chain import ChainHead
from tests.support.audit_trails import MUTATIONS, Files, read_trail, verdict_on, write_trail

TIMES = int(os.environ.get("ICR_TEST_MUTATIONS", "10000")) // len(MUTATIONS) + 1


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, ChainHead]:
    directory = tmp_path_factory.mktemp("trail")
    head = write_trail(directory)
    return read_trail(directory), head


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_every_mutation_is_found(
    trail: tuple[Files, ChainHead], mutate: Callable[[Files, random.Random], Files]
) -> None:
    files, head = trail
    chance = random.Random(mutate.__name__)
    missed = []

    for number in range(TIMES):
        mutated = mutate(files, chance)
        if mutated != files and not verdict_on(mutated, head=head).findings:
            missed.append(number)

    assert missed == []


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_found_in_a_trail_that_nobody_touched(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for start in range(chance.randint(1, 4)):
        head = write_trail(
            tmp_path, files=chance.randint(1, 5), records=chance.randint(3, 20) + start
        )

    verdict = verdict_on(read_trail(tmp_path), head=head)

    assert verdict.findings == ()
    assert verdict.last is not None
    assert verdict.last.hash == head.hash

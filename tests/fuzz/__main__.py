"""The long run: as many cases as there is time for, on all cores.

    python -m tests.fuzz --minutes 10
    python -m tests.fuzz --cases 1000000 --jobs 2
    python -m tests.fuzz inbound --first 18089 --cases 1     see one case again

A case is known by its number alone. Ends with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from tests.fuzz.blocks import GRAMMARS, Block, play_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK = 1000  # cases that one proxy lives for
REPORT_SECONDS = 15.0
FINDINGS_MOST = 20


class Run:
    """Everything that was played."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in GRAMMARS}
        self.cases: Counter[str] = Counter()
        self.findings: list[str] = []
        self._began = self._reported = time.monotonic()

    def add(self, block: Block) -> None:
        """Count a block; say something now and then."""
        self.counts[block.grammar] += block.counts
        self.cases[block.grammar] += block.cases
        for finding in block.findings:
            self.findings.append(finding)
            say(finding)
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            self.report()

    def report(self) -> None:
        """Say how far it is."""
        seconds = time.monotonic() - self._began
        total = self.cases.total()
        each = ", ".join(f"{name} {count:,}" for name, count in self.cases.items())
        rate = total / max(seconds, 0.001)
        say(f"{total:,} cases ({each}) in {seconds:.0f} s, {rate:,.0f}/s, "
            f"{len(self.findings)} findings")  # fmt: skip

    def conclude(self) -> int:
        """Say what came of it."""
        for name, counts in self.counts.items():
            if counts:
                say(f"{name}: " + ", ".join(f"{what} {n:,}" for what, n in counts.most_common()))
        self.report()
        return 1 if self.findings else 0


def say(line: str) -> None:
    """Print at once: it may be a log."""
    print(line, flush=True)  # noqa: T201  # a program for a terminal


def blocks(grammars: Sequence[str], *, first: int, cases: int | None) -> Iterator[Block]:
    """Give what is to be played, grammar by grammar in turn, perhaps for ever."""
    share = None if cases is None else -(-cases // len(grammars))
    for start in itertools.count(first, BLOCK):
        left = BLOCK if share is None else first + share - start
        if left <= 0:
            return
        for grammar in grammars:
            yield Block(grammar=grammar, first=start, cases=min(BLOCK, left))


def play(waiting: Iterator[Block], *, jobs: int, deadline: float) -> Run:
    """Keep all processes busy until there is nothing left to play, or no time."""
    run = Run()
    with ProcessPoolExecutor(jobs) as pool:
        playing: set[Future[Block]] = set()
        while True:
            while len(playing) < jobs + 1 and time.monotonic() < deadline:
                block = next(waiting, None)
                if block is None or len(run.findings) >= FINDINGS_MOST:
                    break
                playing.add(pool.submit(play_block, block))
            if not playing:
                return run
            done, playing = wait(playing, return_when=FIRST_COMPLETED)
            for each in done:
                run.add(each.result())


def main() -> int:
    """Read the arguments and play."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("grammar", nargs="?", choices=[*GRAMMARS, "all"], default="all")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    minutes = options.minutes if options.minutes or options.cases else 1.0
    grammars = list(GRAMMARS) if options.grammar == "all" else [options.grammar]
    deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
    waiting = blocks(grammars, first=options.first, cases=options.cases)
    return play(waiting, jobs=options.jobs, deadline=deadline).conclude()


if __name__ == "__main__":
    sys.exit(main())

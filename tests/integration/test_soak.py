"""A minute of everything that can go wrong with tokens; `tests/bench/soak.py` has it for longer."""

from __future__ import annotations

import pytest

from tests.bench.soak import soak


@pytest.mark.timeout(180)
async def test_callers_notice_nothing_of_tokens_for_a_minute() -> None:
    report = await soak(seconds=60.0)

    assert report.requests >= 20_000, report
    assert set(report.statuses) == {"200"}, report
    assert report.ratio <= 1.2, report
    assert (report.outages, report.shifts) == (2, 4)
    assert report.revocations > 0
    assert report.failed_mints > 0

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.config.models import AuditConfig
from icr_proxy.observability.log import LineBuffer, Threshold, build_log
from icr_proxy.observability.metrics import Metrics
from icr_proxy.runtime.build_observers import build_auditing
from tests.support.app_fixture import config_for

LOADED = (
    "import sys, icr_proxy.runtime.process;"
    " print([n for n in sys.modules if n.startswith('icr_proxy.audit.')])"
)


def test_off_there_is_no_trail_and_on_there_is(tmp_path: Path) -> None:
    made = []
    for audit in (AuditConfig(), AuditConfig(directory=tmp_path)):
        config = config_for("http://127.0.0.1:1", audit=audit)
        log = build_log(
            config.logs, lines=LineBuffer(io.BytesIO()), threshold=Threshold("info"),
            now=SYSTEM_CLOCKS.now,
        )  # fmt: skip
        made.append(
            build_auditing(config, log=log, metrics=Metrics(), feed=None, clocks=SYSTEM_CLOCKS)
        )

    assert made[0] is None
    assert made[1] is not None


def test_off_it_costs_not_even_an_import() -> None:
    found = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)

    assert found.stdout.strip() == b"[]"

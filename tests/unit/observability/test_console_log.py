"""What it draws is told by test_logs; here it is who has to pay for it."""

import io
import subprocess
import sys

from icr_proxy.observability.console_log import console_log
from icr_proxy.observability.log import LineBuffer

SERVICE = """
import io, sys
from icr_proxy.config.models import LogsConfig
from icr_proxy.observability.log import LineBuffer, Threshold, build_log
lines = LineBuffer(io.BytesIO())
build_log(
    LogsConfig(format="json"), lines=lines, threshold=Threshold("info"), now=lambda: 0.0
).info("proxy.started")
sys.exit("structlog" in sys.modules)
"""


def test_what_does_not_pass_is_not_written() -> None:
    stream = io.BytesIO()
    log = console_log(
        LineBuffer(stream),
        passes=lambda level: level == "error",
        moment=lambda: "now",
        colors=False,
    )

    log.info("something.happened")
    log.error("something.failed")

    assert stream.getvalue().decode().split() == ["now", "[error", "]", "something.failed"]


def test_a_service_that_writes_json_does_not_load_it() -> None:
    assert subprocess.run([sys.executable, "-c", SERVICE], check=False).returncode == 0

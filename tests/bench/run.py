"""Runs the benchmarks: `make bench`. See README.md beside this file."""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import icr_proxy
from icr_proxy import __version__
from tests.bench.contenders import CONTENDERS
from tests.bench.cost import cost
from tests.bench.machinery import LOAD_CORE
from tests.bench.origins import make_secrets
from tests.bench.plot import plot
from tests.bench.report import Report, markdown, written
from tests.bench.suites import SUITES as OTHERS
from tests.bench.suites import Bench

SUITES = {**OTHERS, "cost": cost}
DESCRIPTORS = 65_536


def main() -> None:
    """Measure and write the report."""
    options = _options()
    if options.base and not options.base.exists():
        sys.exit(f"{options.base} is not there")
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; `make bench` installs them")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    compileall.compile_dir(Path(icr_proxy.__file__).parent, quiet=2)  # as pip does when it installs
    os.sched_setaffinity(0, {LOAD_CORE})  # what asks and watches takes nothing from a contender
    contenders = options.contenders or tuple(CONTENDERS)
    base = options.base.absolute() if options.base else None  # not resolved: a venv's is a link
    with tempfile.TemporaryDirectory(prefix="icr-bench-") as work:
        bench = Bench(
            tools=options.tools.absolute(),
            work=Path(work),
            contenders=(*contenders, *(["base"] if options.base else [])),
            rounds=options.rounds,
            seconds=options.seconds,
            other=base,
        )
        bench.work.chmod(0o755)  # nginx's worker is somebody else
        make_secrets(bench.work)
        failed = [suite for suite in options.suites or SUITES if not measured(bench, suite)]
    _write(bench, options.out)
    if failed:
        sys.exit(f"not measured to the end: {', '.join(failed)}")


def measured(bench: Bench, suite: str) -> bool:
    """Run a suite; one that fails does not take with it what the others found in half an hour."""
    print(suite, file=sys.stderr, flush=True)  # noqa: T201
    try:
        SUITES[suite](bench)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"  {suite} failed: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return False
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[[], *SUITES], help="default: all")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each measurement")
    parser.add_argument("--tools", type=Path, default=Path(".bench"))
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--base", type=Path, help="the Python of another checkout, to compare")
    return parser.parse_args()


def _write(bench: Bench, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),  # noqa: TID251  # a report wants a date
        "icr-proxy": __version__,
        "revision": _said("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version() + " of Debian" * (sys.base_prefix == "/usr"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "envoy": _envoy_version(bench.tools / "bin" / "envoy"),
        "rounds": bench.rounds,
        "seconds": bench.seconds,
    }
    report = Report(facts, bench.numbers)
    text = markdown(report)
    (out / "report.json").write_text(written(report))
    (out / "report.md").write_text(text)
    (out / "report.svg").write_text(plot(report))
    print(text)  # noqa: T201


def _envoy_version(binary: Path) -> str | None:
    """Give the version, if Envoy is there: not every suite needs it."""
    return _said(binary, "--version").split("/")[-4] if binary.exists() else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()

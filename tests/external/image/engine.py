"""Builds and runs the image without Docker: by buildah, podman and runc, on a base made here.

The base stands in for python:slim, which no registry here can give: Debian with Python, as small as
`debootstrap` makes it. What differs is where Python lies, and the Dockerfile must not care.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[3]
BASE = "localhost/python:3.13-slim"
SUITE = "trixie"
PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Files of the machine that pip needs inside a build; they are mounted and never become a layer.
MOUNTED = [Path("/etc/ssl/certs"), Path("/etc/pip.conf")]


@dataclass(frozen=True)
class Engine:
    """Storage of its own, so that nothing is left behind and nothing else is seen."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        config = self.folder / "storage.conf"
        if not config.exists():
            config.write_text(
                f'[storage]\ndriver="vfs"\nrunroot="{self.folder}/run"\n'
                f'graphroot="{self.folder}/graph"\n'
            )
        return {**os.environ, "CONTAINERS_STORAGE_CONF": str(config)}

    def do(
        self, *words: str | Path, given: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; fails the test with what it said."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.env,
            capture_output=True,
            input=given,
            check=False,
        )
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        assert done.returncode == 0, f"{words}: {text.stdout[-3000:]}{text.stderr[-3000:]}"
        return text

    def make_base(self, cache: Path) -> None:
        """Import the base; its root file system is kept in `cache`, making it takes a minute."""
        archive = cache / f"{SUITE}.tar"
        if not archive.exists():
            cache.mkdir(parents=True, exist_ok=True)
            rootfs = self.folder / "rootfs"
            packages = "--include=python3,python3-venv,ca-certificates"
            self.do("debootstrap", "--variant=minbase", packages, SUITE, rootfs, _mirror())
            self.do("tar", "-C", rootfs, "-cf", f"{archive}.part", ".")
            Path(f"{archive}.part").rename(archive)
            shutil.rmtree(rootfs)
        self.do("podman", "import", "--change", f"ENV {PATH}", archive, BASE)

    def build(self, tag: str) -> None:
        """Build the image from this checkout."""
        volumes = [
            word for each in MOUNTED if each.exists() for word in ("-v", f"{each}:{each}:ro")
        ]
        self.do(
            "buildah", "bud", "--format", "docker", "--isolation", "chroot", "--pull-never",
            *volumes, "--build-arg", f"BASE={BASE}", "--build-arg", "VERSION=test", "-t", tag, ROOT,
        )  # fmt: skip

    def podman(self, *words: str | Path) -> Sequence[str]:
        """Give the command line of podman as it works on a machine without systemd."""
        cgroups = ("--cgroup-manager", "cgroupfs", "--runtime", "runc")
        return [str(word) for word in ("podman", *cgroups, *words)]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run podman to its end."""
        return self.do(*self.podman(*words))

    def logs(self, name: str) -> str:
        """Give what a container has said so far."""
        return self.run("logs", name).stdout

    def until_logged(self, name: str, event: str, *, seconds: float = 20) -> None:
        """Wait until a container has said something."""
        end = time.monotonic() + seconds
        while event not in self.logs(name):
            assert time.monotonic() < end, f"{name} never said {event}: {self.logs(name)}"
            time.sleep(0.1)


# What the container may do: nothing but serve. The limits of descriptors and processes are what
# podman cannot set by itself here.
CONFINED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "128m",
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "host",
    "--pull=never",
)  # fmt: skip


def _mirror() -> str:
    """Give the mirror that this machine installs its packages from."""
    for file in sorted(Path("/etc/apt").rglob("*.sources")):
        for line in file.read_text().splitlines():
            if line.startswith("URIs:") and "security" not in line:
                return line.split()[1]
    for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt").rglob("*.list")):
        for line in file.read_text().splitlines() if file.exists() else ():
            if line.startswith("deb "):
                return next(word for word in line.split() if "://" in word)
    raise RuntimeError("this machine has no Debian mirror")

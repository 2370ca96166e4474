"""`icr-proxy emulator`: runs until it is told to stop and says how to use it."""

import asyncio
import shlex
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from icr_proxy.files import PRIVATE_MODE, replace_file

_LISTED_MOST: Final = 10
_KEY_NAME: Final = "icr_private_key.pem"  # as ICR names its downloads (D)


async def serve(
    settings: EmulatorSettings, *, key_file: Path | None, echo: Callable[[str], None]
) -> None:
    """Run an emulator until SIGINT, SIGTERM or SIGHUP; a start that hangs is ended, too.

    Raises `OSError` if it cannot listen or cannot write the key.
    """
    stopped = asyncio.Event()
    with _signals(stopped):
        serving = asyncio.ensure_future(_serve(settings, key_file=key_file, echo=echo))
        stop = asyncio.ensure_future(stopped.wait())
        await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
        await asyncio.wait((serving,))
    echo("emulator stopped")


async def _serve(
    settings: EmulatorSettings, *, key_file: Path | None, echo: Callable[[str], None]
) -> None:
    async with Emulator(settings) as emulator:
        with _key_on_disk(emulator.private_key_pem, wanted=key_file) as path:
            for line in _introduction(emulator, key_file=path):
                echo(line)
            await asyncio.Event().wait()


@contextmanager
def _key_on_disk(pem: str, *, wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        _write_key(wanted, pem)
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="icr-emulator-") as folder:
        path = Path(folder) / _KEY_NAME
        _write_key(path, pem)
        yield path


def _write_key(path: Path, pem: str) -> None:
    replace_file(path, [pem.encode("ascii")], mode=PRIVATE_MODE)


@contextmanager
def _signals(stopped: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _introduction(emulator: Emulator, *, key_file: Path) -> Iterator[str]:
    base = emulator.base_url
    yield f"ICR API emulator on {base} (throw-away key, invented credits)"
    yield ""
    yield f"  app id       {emulator.app_id}"
    yield f"  key file     {key_file}"
    yield f"  control API  {base}/_emulator/state"
    yield ""
    yield "  installation                          organization                          name"
    installations = list(emulator.world.installations.values())
    for installation in installations[:_LISTED_MOST]:
        organization = installation.organization
        yield f"  {installation.id}  {organization.id}  {organization.full_name}"
    if len(installations) > _LISTED_MOST:
        yield f"  … and {len(installations) - _LISTED_MOST} more, see the control API"
    yield ""
    yield "Run the proxy against it:"
    yield ""
    yield (
        f"  ICR_PROXY_APP__ID={emulator.app_id}"
        f" ICR_PROXY_APP__PRIVATE_KEY_FILE={shlex.quote(str(key_file))}"
        f" ICR_PROXY_UPSTREAM__BASE_URL={base} icr-proxy run"
    )
    if installations:
        first = installations[0]
        yield ""
        yield "Ask through the proxy:"
        yield ""
        yield (
            f"  curl -H 'X-ICR-Installation-Id: {first.id}'"
            f" http://127.0.0.1:8080/organizations/{first.organization.id}/inventory"
        )
    yield ""

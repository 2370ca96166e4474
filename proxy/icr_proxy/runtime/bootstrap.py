"""Prepares the process before anything else is imported, and ends it.

Imports take a fifth of a second, on a busy machine more. Signals are therefore handled before them:
for PID 1 of a container the kernel drops a signal that has no handler, and the process would run on
until it is killed. This module imports nothing but the standard library.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False  # `typing` takes as long to import as everything before the first handler
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine, Sequence
    from types import FrameType
    from typing import Any, NoReturn, TextIO, TypeVar

    from typing_extensions import Buffer

    T = TypeVar("T")

SERVICES = frozenset({"run", "injector", "emulator"})
"""Commands that run until a signal ends them, which is then no failure."""
RELOADED = frozenset({"run", "injector"})
"""Commands that SIGHUP does not end."""
KILLED = 128  # plus the signal's number: what a shell reports of a process that a signal has ended
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
INIT = 1  # process ID
FAILED = 1
SIMILAR = {  # characters of our own texts, and typographic signs in names
    "\u2026": "...",
    "\u2013": "-",
    "\u2014": "-",
    "\u2192": "->",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
}


class Hangup:
    """Remembers a SIGHUP that came before the event loop could act on it."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the signal."""
        self.came = True


def prepare(words: Sequence[str]) -> None:
    """Handle signals, open standard descriptors, and make output safe for any character.

    `words` is the command line after the program's name.
    """
    _handle_signals(words)
    # The parent may have blocked signals so that none is lost before this line, as the image does.
    # If they stayed blocked, only SIGKILL would end the process.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    _open_descriptors()
    _wait_for_readers()
    _approximate_characters()


def is_service(words: Sequence[str]) -> bool:
    """Tell whether the command serves until a signal ends it."""
    return next(iter(words), "") in SERVICES


# -- signals --------------------------------------------------------------------------------------


def _handle_signals(words: Sequence[str]) -> None:
    """Handle signals until the command does so itself.

    Nothing is open yet and nothing is under way, so the process ends on the spot: for a service a
    signal before it is ready is a normal stop. An exception could be caught by what is imported.
    """
    if is_service(words):
        _end_at(signal.SIGTERM, code=0)
        _end_at(signal.SIGINT, code=0)
        if words[0] in RELOADED:
            signal.signal(signal.SIGHUP, Hangup())
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
            _end_at(signal.SIGHUP, code=0)
        return
    _end_at(signal.SIGINT, code=KILLED + signal.SIGINT)  # until `allow_interrupts`
    if os.getpid() == INIT:
        _end_at(signal.SIGTERM, code=KILLED + signal.SIGTERM)
        _end_at(signal.SIGHUP, code=KILLED + signal.SIGHUP)


def _end_at(number: signal.Signals, *, code: int) -> None:
    signal.signal(number, lambda _number, _frame: os._exit(code))  # public, despite its name


def allow_interrupts(words: Sequence[str]) -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, so that a command cleans up."""
    if not is_service(words):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def early_hangup() -> Hangup:
    """Return what remembers a SIGHUP; call this before you set another handler, read it after."""
    handler = signal.getsignal(signal.SIGHUP)
    return handler if isinstance(handler, Hangup) else Hangup()


# -- descriptors ----------------------------------------------------------------------------------


def _open_descriptors() -> None:
    """Open `/dev/null` in place of standard descriptors that are closed.

    A socket that gets one of these numbers receives what is printed, and libuv aborts on it.
    """
    for number in (0, 1, 2):  # in this order: `open` returns the lowest free number
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # positional-only
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def _wait_for_readers() -> None:
    """Replace streams whose descriptors do not block: Python would cut a line at EAGAIN.

    The flag belongs to the pipe or terminal, and so to everybody who has it. It stays.
    """
    if not os.get_blocking(1):
        sys.stdout = _waiting_stream(1, like=sys.stdout)
    if not os.get_blocking(2):
        sys.stderr = _waiting_stream(2, like=sys.stderr)


def _waiting_stream(number: int, *, like: TextIO) -> TextIO:
    import io  # noqa: PLC0415
    import select  # noqa: PLC0415

    class Waiting(io.FileIO):
        """Waits until there is room, as a blocking descriptor would."""

        def write(self, data: Buffer, /) -> int:
            while (written := super().write(data)) is None:
                room = select.poll()
                room.register(self.fileno(), select.POLLOUT)
                room.poll()
            return written

    raw = io.BufferedWriter(Waiting(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw, encoding=like.encoding, errors=like.errors, line_buffering=bool(like.line_buffering)
    )


# -- characters -----------------------------------------------------------------------------------


def _approximate_characters() -> None:
    """Replace characters that a stream cannot show, whatever its encoding. Nothing raises."""
    codecs.register_error("approximate", approximate)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream of another kind, without an encoding
            stream.reconfigure(errors="approximate")  # type: ignore[union-attr]


def approximate(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded by similar ones (a `codecs` error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    failed = error.object[error.start : error.end]
    return "".join(SIMILAR.get(char, "?") for char in failed), error.end


# -- event loops ----------------------------------------------------------------------------------


def run_service(main: Coroutine[Any, Any, T], *, new_loop: Callable[[], AbstractEventLoop]) -> T:
    """Run a service to its end; the process should then `leave`.

    The loop is not closed: libuv would wait for name lookups that are under way.
    """
    import asyncio  # noqa: PLC0415  # signals are handled before this is imported

    return asyncio.Runner(loop_factory=new_loop).run(main)


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, but wait for no thread in the end."""
    import asyncio  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    class Unawaited(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # theirs
            del wait, cancel_futures
            super().shutdown(wait=False, cancel_futures=True)

    async def run() -> T:
        asyncio.get_running_loop().set_default_executor(Unawaited())
        return await main

    return asyncio.run(run())


# -- the end --------------------------------------------------------------------------------------


def leave_after(seconds: float, *, code: Callable[[], int]) -> None:
    """End the process after so many seconds, even if something hangs."""
    import threading  # noqa: PLC0415

    timer = threading.Timer(seconds, lambda: os._exit(code()))
    timer.daemon = True
    timer.start()


def leave(code: int) -> NoReturn:
    """End the process now, and wait for no thread.

    A name lookup cannot be cancelled. Python and libuv would wait until the threads that do it come
    back, up to 40 s with the resolver's defaults.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or FAILED  # the output has not been written
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)  # public, despite its name

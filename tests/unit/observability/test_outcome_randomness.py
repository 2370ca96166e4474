import re
import subprocess
import sys

from icr_proxy.observability.outcome import DIGITS, DRAWN, fresh_digits

AT_A_TIME = DRAWN * 2 // DIGITS


def test_they_are_as_many_hexadecimal_digits_as_a_trace_needs() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", fresh_digits())


def test_nobody_gets_the_digits_of_another() -> None:
    many = 3 * AT_A_TIME

    assert len({fresh_digits() for _ in range(many)}) == many


def test_no_digits_are_in_two_places() -> None:
    """Halves are ids of their own: a draw that is cut at the wrong places repeats them."""
    drawn = "".join(fresh_digits() for _ in range(AT_A_TIME))
    halves = [drawn[at : at + 32] for at in range(0, len(drawn), 32)]

    assert len(set(halves)) == 2 * AT_A_TIME


FORK = """
import os
from icr_proxy.observability.outcome import fresh_digits
fresh_digits()
child = os.fork() == 0
# In one write: an unbuffered print writes word by word, and the two processes' words would mix.
os.write(1, b"".join(fresh_digits().encode() + b"\\n" for _ in range(3)))
if not child:
    os.wait()
"""


def test_after_a_fork_parent_and_child_go_apart() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True)

    assert len(set(done.stdout.split())) == 6

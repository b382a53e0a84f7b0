"""What lasts is not looked through again; what was freed goes back to the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLES = """
from splitbus_runtime.heap import trim

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

blocks = [bytes(4000) for _ in range(40_000)]
full = resident_mb()
kept = blocks[-1]
del blocks
trim()
print(full - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
def test_what_was_freed_below_something_that_lives_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 100


SETTLED = """
import gc
from splitbus_runtime.heap import settle

class Ring:
    def __init__(self):
        self.me = self

lasting = [Ring() for _ in range(1000)]
before = len(gc.get_objects())
settle()
there = gc.get_objects()
print(before, len(there), any(thing is lasting[0] for thing in there))
del there
gone = Ring()
del gone
print(gc.collect())
"""


def test_what_lasts_is_not_looked_through_again_and_what_comes_later_is() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, check=True)
    before, there, seen, collected = done.stdout.split()
    assert int(before) > 1000 > int(there)
    assert seen == "False"
    assert int(collected) >= 1

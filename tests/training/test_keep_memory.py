"""keep_freed_memory: a process of its own is not given its memory anew in each step."""

import platform
import subprocess
import sys

import pytest

from graphscale.training import keep_memory

# Without torch, which takes seconds to import: blocks of 64 MiB, filled and freed.
_COUNT_FAULTS = """
import ctypes, resource, runpy, sys
if sys.argv[2] == "keep":
    assert runpy.run_path(sys.argv[1])["keep_freed_memory"]()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p

def use_and_free():
    block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(64 << 20)))
    ctypes.memset(block, 1, 64 << 20)
    library.free(block)

use_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_pages_are_kept():
    command = [sys.executable, "-c", _COUNT_FAULTS, keep_memory.__file__]
    kept, anew = (
        int(subprocess.run([*command, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "return")
    )
    # 64 MiB are 16,384 pages of 4 KiB, if the system has no larger ones; some are for other things.
    assert kept < 20
    assert anew > 3 * kept

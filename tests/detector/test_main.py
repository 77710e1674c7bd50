"""The exit status of what goes wrong, and that a rank which fails alone does not wait for its peers."""

import os
import subprocess
import sys

import pytest

from detector.errors import BAD_INPUT, FAILED

SCRIPT = """
import errno, sys, threading, time
from detector.__main__ import tell_errors

def fail():
    raise {error}

threading.Thread(target=time.sleep, args=({waits},)).start()  # as one of a process group, which an orderly end waits for
sys.exit(tell_errors(fail))
"""


@pytest.mark.parametrize("error, status", [("OSError(errno.ENOSPC, 'full', 'log.txt')", BAD_INPUT),
                                           ("OSError(errno.ENOENT, 'wrong')", FAILED), ("BrokenPipeError()", FAILED),
                                           ("ValueError('wrong')", FAILED)])
@pytest.mark.parametrize("world", [1, 2])
def test_a_rank_that_fails_alone_is_gone_at_once(error, status, world):
    waits = 300 if world > 1 else 0
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(error=error, waits=waits)], timeout=60, text=True,
                          capture_output=True, env={**os.environ, "WORLD_SIZE": str(world), "RANK": "0"})
    assert done.returncode == status
    assert "BrokenPipe" in error or "full" in done.stderr or ("wrong" in done.stderr and "Traceback" in done.stderr)

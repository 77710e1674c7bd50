"""Exit statuses of errors, and that a rank with an error of its own does not wait for the other ranks."""

import os
import subprocess
import sys

import pytest

from detector.__main__ import main
from detector.errors import BAD_INPUT, FAILED

SCRIPT = """
import errno, sys, threading, time
from detector.__main__ import report_errors

def fail():
    raise {error}

threading.Thread(target=time.sleep, args=({waits},)).start()  # like a thread of a process group, which a normal exit waits for
sys.exit(report_errors(fail))
"""


@pytest.mark.parametrize("error, status", [("OSError(errno.ENOSPC, 'full', 'log.txt')", BAD_INPUT),
                                           ("OSError(errno.ENOENT, 'wrong')", FAILED), ("BrokenPipeError()", FAILED),
                                           ("ValueError('wrong')", FAILED)])
@pytest.mark.parametrize("world", [1, 2])
def test_a_rank_with_an_error_of_its_own_exits_at_once(error, status, world):
    waits = 300 if world > 1 else 0
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(error=error, waits=waits)], timeout=60, text=True,
                          capture_output=True, env={
                              **os.environ, "TORCHELASTIC_RUN_ID": "7", "WORLD_SIZE": str(world), "RANK": "0",
                              "MASTER_ADDR": "localhost", "MASTER_PORT": "29999"})
    assert done.returncode == status
    assert "BrokenPipe" in error or "full" in done.stderr or ("wrong" in done.stderr and "Traceback" in done.stderr)


@pytest.mark.parametrize("other", [["--time"], ["--weights", "some.pt", "--recipe", "a-row"]])
def test_a_report_of_weights_or_of_latency_is_refused(other, capsys):
    assert main(["evaluate", "runs/some", "--report", *other]) == BAD_INPUT
    assert f"error: --report with {other[0]}: " in capsys.readouterr().err


def test_a_name_that_the_terminal_cannot_show_is_escaped():
    code = "from detector.errors import escape_unprintable; escape_unprintable(); print('stra\\udcdfe \u00e9')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == b"stra\\udcdfe \\xe9\n" and done.returncode == 0

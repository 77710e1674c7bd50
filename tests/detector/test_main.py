"""The exit status of what goes wrong, and that a rank which fails alone does not wait for its peers."""

import os
import subprocess
import sys

import pytest

from detector.__main__ import main
from detector.errors import BAD_INPUT, FAILED
from detector.training.async_checkpoint import kept

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


@pytest.mark.parametrize("other", [["--time"], ["--weights", "some.pt", "--recipe", "a-row"]])
def test_a_report_of_anything_but_a_run_is_refused(other, capsys):
    assert main(["evaluate", "runs/some", "--report", *other]) == BAD_INPUT
    assert f"error: --report with {other[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("step, elapsed_s, said", [
    (0, None, "before the first step there is nothing to save"), (7, None, "step 7 is saved"), (7, 1.25, "saved step 7 in 1.2 s")])
def test_a_stop_tells_what_is_on_disk(step, elapsed_s, said):
    assert kept(step, elapsed_s) == said

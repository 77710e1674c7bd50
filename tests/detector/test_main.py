"""Exit statuses of errors, and that a rank with an error of its own does not wait for the other ranks."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

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
                                           ("OSError(errno.ENOTDIR, 'full', 'log.txt')", BAD_INPUT),
                                           ("OSError(errno.ENOENT, 'wrong')", FAILED), ("BrokenPipeError()", FAILED),
                                           ("OSError(errno.ESHUTDOWN, 'full')", BAD_INPUT),
                                           ("OSError(errno.ENOTCONN, 'full', 'log.txt')", BAD_INPUT),
                                           ("OSError(errno.ENOTCONN, 'wrong')", FAILED),
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


def test_output_that_nobody_reads_any_more_ends_no_training(capfd):
    read_end, write_end = os.pipe()
    code = ("import sys\nfrom detector.errors import lasting_output\nwith lasting_output():\n    sys.stdin.readline()\n"
            "    for _ in range(3):\n        print('x' * 100000, flush=True)\n    print('done', file=sys.stderr)")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    os.close(read_end)
    _, err = process.communicate(b"\n", timeout=60)
    assert (process.returncode, err) == (0, b"done\n")


@pytest.mark.parametrize("error, message, status", [
    ("OSError(errno.EMFILE, 'Too many open files')", "too many open files: this shell allows", BAD_INPUT),
    ("RuntimeError('received 0 items of ancdata')", "too many open files", BAD_INPUT),
    ("MemoryError()", "out of memory: MemoryError. Lower run.num_workers or batch.micro_batch_size", FAILED),
    ("RuntimeError('unable to allocate shared memory(shm) for file </torch_1>')", "Enlarge /dev/shm", FAILED),
    ("RuntimeError(\"can't start new thread\")", "Raise the limit of `ulimit -u`", BAD_INPUT),
    ("FileNotFoundError(errno.ENOENT, 'No usable temporary directory found')", "Set TMPDIR", BAD_INPUT)])
def test_an_error_of_the_machine_is_one_line_with_a_remedy(error, message, status):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(error=error, waits=0)], timeout=60, text=True, capture_output=True)
    assert done.returncode == status and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_locale_without_utf8_changes_no_name(tmp_path):
    subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")], check=True, capture_output=True)
    (tmp_path / "one.py").write_text("import sys\nfrom detector.errors import escape_unprintable, use_utf8\nuse_utf8()\n"
                                     "escape_unprintable()\nprint(sys.argv[1], open(sys.argv[1]).read())")
    (tmp_path / "猫").write_text("größe 猫", encoding="utf-8")
    done = subprocess.run([sys.executable, str(tmp_path / "one.py"), "猫"], capture_output=True, cwd=tmp_path,
                          env={**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1", "PYTHONPATH": str(REPO)})
    assert done.stdout == "\\u732b größe \\u732b\n".encode("latin-1") and done.returncode == 0, done.stderr

"""The code snapshot of a run."""

import subprocess
import sys

from launcher.code_snapshot import take_snapshot


def test_a_snapshot_runs_by_itself_and_replaces_the_one_before(tmp_path):
    code = take_snapshot(tmp_path / "code")
    (code / "stale").touch()
    assert take_snapshot(tmp_path / "code") == code and not (code / "stale").exists()
    done = subprocess.run([sys.executable, str(code), "options"], cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 0 and "run.max_requeues" in done.stdout
    assert subprocess.run([sys.executable, str(code), "begin"], cwd=tmp_path, env={}).returncode == 2
    assert (code / "COMMIT").is_file() and not list(tmp_path.glob("*.part"))

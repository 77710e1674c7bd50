"""The code snapshot of a run: a copy of the packages in the run folder, so that later edits do not affect the run."""

import shutil
from pathlib import Path

from detector.config.names import shipped_folder
from detector.errors import BadInput
from detector.run.commit import commit
from launcher.job import CODE

MAIN = '''"""python FOLDER VERB ...: runs the code in this folder, that of the run as it was at submission."""
import signal
import sys

if __name__ == "__main__":
    if sys.argv[1:2] in (["task"], ["enter"], ["submitit"]):  # keeps a signal that arrives while Python starts
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    if sys.argv[1:2] in (["begin"], ["task"], ["end"], ["enter"], ["submitit"]):
        from launcher.slurm_job import main
    else:
        from detector.__main__ import main
    sys.exit(main())
'''


def take_snapshot(code: Path) -> Path:
    """Copies the packages launcher and detector into the folder `code`, replacing an earlier copy; returns `code`.

    Raises:
        BadInput: the folder cannot be written.
    """
    partial = code.with_name(code.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for package in ("launcher", "detector"):
            shutil.copytree(CODE / package, partial / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for folder in ("configs", "slurm"):
            shutil.copytree(shipped_folder() / folder, partial / "detector" / "shipped" / folder, dirs_exist_ok=True)
        (partial / "__main__.py").write_text(MAIN, encoding="utf-8")
        (partial / "COMMIT").write_text(commit() + "\n", encoding="utf-8")
        shutil.rmtree(code, ignore_errors=True)
        partial.rename(code)
    except OSError as error:
        raise BadInput(f"cannot write {code}: {error.strerror}. Free disk space, or set run.folder") from error
    return code

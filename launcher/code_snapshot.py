"""The code of a submission, kept in the run folder: what is edited later does not reach a queued run."""

import shutil
from pathlib import Path

from detector.config.load import shipped_folder
from detector.errors import BadInput
from detector.run.commit import commit
from launcher.job import CODE

MAIN = '''"""python {folder} VERB ...: the code of this run, as it was when it was submitted."""
import signal
import sys

if __name__ == "__main__":
    if sys.argv[1:2] in (["task"], ["blocked"]):  # a signal that comes while Python starts is kept
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    if sys.argv[1:2] in (["begin"], ["task"], ["end"], ["blocked"]):
        from launcher.slurm_job import main
    else:
        from detector.__main__ import main
    sys.exit(main())
'''


def take_snapshot(code: Path) -> Path:
    """Copies launcher and detector to the folder `code`; gives it. It replaces the copy of an earlier submission."""
    beside = code.with_name(code.name + ".part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        for package in ("launcher", "detector"):
            shutil.copytree(CODE / package, beside / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for folder in ("configs", "slurm"):
            shutil.copytree(shipped_folder() / folder, beside / "detector" / "shipped" / folder, dirs_exist_ok=True)
        (beside / "__main__.py").write_text(MAIN.format(folder=code), encoding="utf-8")
        (beside / "COMMIT").write_text(commit() + "\n", encoding="utf-8")
        shutil.rmtree(code, ignore_errors=True)
        beside.rename(code)
    except OSError as error:
        raise BadInput(f"cannot write {code}: {error.strerror}. Make room, or set run.folder") from error
    return code

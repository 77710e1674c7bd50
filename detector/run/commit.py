"""The git commit of the running code."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Returns the commit of the checkout, with a + if files differ from the commit; empty outside a checkout.

    A copy of the code that the launcher made for a job names its commit in the file COMMIT.
    """
    folder = Path(__file__).resolve().parents[2]
    if (folder / "COMMIT").is_file():
        return (folder / "COMMIT").read_text(encoding="utf-8").strip()
    if not (folder / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True)
        return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""

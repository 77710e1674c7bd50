"""The commit of the code that runs."""

import subprocess
from pathlib import Path


def commit() -> str:
    """With + if files differ from it; empty outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if (folder / "COMMIT").is_file():  # a run's own copy of the code
        return (folder / "COMMIT").read_text(encoding="utf-8").strip()
    if not (folder / ".git").exists():
        return ""
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True)
        return name.stdout.strip() + ("+" if changes.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""

"""The program fleet-rcnn: runs launcher/cli.py. Ctrl-C prints one line, also while modules are imported."""

import sys


def main() -> int:
    """Runs the command line of this process and returns the exit status."""
    try:
        from launcher.cli import main as run_command_line
        return run_command_line()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

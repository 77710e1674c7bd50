"""sync.json in a run folder: which remote run each tracker has of it, and what was sent there."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from detector.run.files import SYNC_FILE, read_json, write_json
from detector.sync.record import Record

WANDB_SERVER = "https://api.wandb.ai"  # of W&B itself


@dataclass(frozen=True)
class Progress:
    """A tracker's part of sync.json: which remote run it has, and what was sent there."""

    to: str             # mlflow or wandb
    url: str            # of the server; empty: the default one
    project: str
    name: str           # of the run: a copied folder is another run
    run: str = ""       # id of the remote run; empty: there is none yet
    lines: int = 0      # of metrics.jsonl that were sent
    digest: str = ""    # of these lines
    begun: int = 0      # of MLflow: lines that were sent or begun to be sent; more than `lines` after a sync that was
                        # cut short
    rows: int = 0       # steps of W&B's own that were used
    files: dict[str, str] = field(default_factory=dict)  # digest of each file that was sent, by its path

    def with_lines(self, record: Record, count: int) -> "Progress":
        """Returns the progress when the first `count` lines are sent."""
        return replace(self, lines=count, begun=count, digest=record.digests[count])

    def is_start_of(self, record: Record) -> bool:
        """Returns whether the lines that were sent are the first ones of the record: not so if it was taken back."""
        return self.lines <= len(record.lines) and record.digests[self.lines] == self.digest


def read_progress(folder: Path, to: str, url: str, project: str, name: str) -> Progress:
    """Returns what a tracker has of a run; that of a run that was never sent if there is no such entry."""
    new = Progress(to, url, project, name)
    return next((replace(entry, url=url) for entry in read_entries(folder) if key_of(entry) == key_of(new)), new)


def write_progress(folder: Path, progress: Progress) -> None:
    """Replaces the entry of one tracker in sync.json. Raises BadInput if the file cannot be written."""
    others = [entry for entry in read_entries(folder) if key_of(entry) != key_of(progress)]
    write_json(folder / SYNC_FILE, {"synced": [asdict(entry) for entry in (*others, progress)]})


def read_entries(folder: Path) -> list[Progress]:
    """Returns all entries of sync.json; an entry that is damaged is left out."""
    names = {item.name for item in fields(Progress)}
    entries = read_json(folder / SYNC_FILE).get("synced", [])
    return [Progress(**entry) for entry in entries if isinstance(entry, dict) and set(entry) == names]


def key_of(progress: Progress) -> tuple[str, str, str, str]:
    """Returns what makes two entries the same; one server has several addresses."""
    url = progress.url.rstrip("/")
    return progress.to, "" if url == WANDB_SERVER else url, progress.project, progress.name

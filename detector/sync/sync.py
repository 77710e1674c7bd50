"""`sync`: sends what a tracker does not have yet of a run."""

import http.client
import importlib.util
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detector.errors import BadInput, shorten
from detector.run.folder_lock import folder_lock
from detector.sync.mlflow_run import sync_to_mlflow
from detector.sync.progress import WANDB_SERVER, Progress, read_progress, write_progress
from detector.sync.record import Record, first_line, read_record
from detector.sync.wandb_run import is_offline, sync_to_wandb

PROJECT = "fleet-rcnn"
TIMEOUT_S = 10.0
DATABASE_SERVER = re.compile(r"(postgres|postgresql|mysql|mssql)(\+\w+)?:")


@dataclass(frozen=True)
class Target:
    """An experiment tracker.

    send: sends what is new and saves the progress after each part; returns the progress, and lines for the user.
    """

    send: Callable[[Record, Progress, Callable[[Progress], None]], tuple[Progress, list[str]]]
    package: str        # that is imported
    install: str        # what pip installs
    url_variable: str
    project_variable: str
    default_url: str = ""
    without_server: str = ""  # a sentence on what one may do without a server


TARGETS = {
    "mlflow": Target(sync_to_mlflow, "mlflow", "mlflow-skinny", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"),
    "wandb": Target(sync_to_wandb, "wandb", "wandb", "WANDB_BASE_URL", "WANDB_PROJECT", WANDB_SERVER,
                    "; WANDB_MODE=offline writes to this disk only"),
}


def sync(run: str, to: str, url: str = "", project: str = "") -> list[str]:
    """Sends the record of a run to a tracker: the first time all, later what is new. Returns lines for the user.

    Args:
        to: a key of TARGETS.
        url: of the server; empty: that of the tracker's environment variable.
        project: of W&B, or the experiment of MLflow; empty: by environment variable, or "fleet-rcnn".

    Raises:
        BadInput: there is no such run, the package is missing, or the server cannot be used.
    """
    target, folder = TARGETS[to], Path(run)
    record = read_record(folder)
    if importlib.util.find_spec(target.package) is None:
        raise BadInput(f"sync --to {to} needs {target.package}, which is not installed: pip install {target.install}")
    url = url or os.environ.get(target.url_variable, "")
    refuse_secrets(url)
    project = project or os.environ.get(target.project_variable, "") or PROJECT
    if not (url or target.default_url):
        raise BadInput(f"sync --to {to} needs a server: --url http://localhost:5000, or the environment variable "
                       f"{target.url_variable}; `mlflow server --port 5000` starts one")
    if not (to == "wandb" and is_offline()):
        ensure_reachable(url or target.default_url, target)
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder} cannot be written, and sync.json in it keeps what was sent: ask its owner to sync it,"
                       " or sync a copy of the folder")
    with folder_lock(folder, f"another process syncs {folder}: wait for it"):
        progress, notes = read_progress(folder, to, url, project, record.name), []
        if not progress.is_start_of(record):
            notes = [f"the run was trained again from an earlier step than was sent: {to} gets a new run, and the old "
                     f"one ({progress.run}) can be deleted there"]
            progress = Progress(to, url, project, record.name)
        before = progress
        progress, lines = target.send(record, progress, lambda part: write_progress(folder, part))
        write_progress(folder, progress)
    return [*notes, summary(record, before if before.run == progress.run else Progress(to, url, project, ""),
                            progress), *lines]


def summary(record: Record, before: Progress, after: Progress) -> str:
    """Returns what was sent, as one sentence."""
    changed = [path for path, digest in after.files.items() if before.files.get(path) != digest]
    later = f"; {record.num_later} later lines follow with the next checkpoint" if record.num_later else ""
    return (f"{record.name}: {after.lines - before.lines} new lines of {len(record.lines)} and {len(changed)} files"
            + (f" ({shorten(changed, 3)})" if changed else "") + f" are in project {after.project}{later}")


def refuse_secrets(url: str) -> None:
    """Raises BadInput, without the address in it, for one that holds a password, or that is a database."""
    if DATABASE_SERVER.match(url.strip()):
        raise BadInput("the address of the server is that of a database: start `mlflow server --port 5000 "
                       "--backend-store-uri DATABASE`, and name that server: --url http://localhost:5000")
    if "@" in url and not url.startswith(("sqlite:", "file:")):
        raise BadInput("leave name and password out of the address, which is kept in sync.json: set "
                       "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or WANDB_API_KEY")


def ensure_reachable(url: str, target: Target) -> None:
    """Raises BadInput if no server answers at an http(s) address: trackers would try for minutes.

    MLflow also has addresses of other kinds, such as databricks or sqlite:///mlflow.db.
    """
    if not url.startswith(("http://", "https://")):
        if target.package == "mlflow" and ("://" in url or url.startswith("databricks")):
            return
        raise BadInput(f"--url {url}: an address is expected, such as http://localhost:5000")
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:  # a server that answers
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, ssl.SSLError) or isinstance(reason, ssl.SSLError):
            return  # a server that answers; trackers have certificates of their own to check it, or none
        reason = first_line(reason) if isinstance(reason, Exception) else reason
        raise BadInput(f"{url} cannot be reached: {reason}. Start the server, or name another one with --url"
                       f"{target.without_server}") from error

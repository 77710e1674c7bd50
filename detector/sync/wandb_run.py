"""A run in Weights & Biases: its options as config, numbers as history, pictures as images, files as files.

With WANDB_MODE=offline a folder in RUN/wandb holds what is new; `wandb sync FOLDER` uploads it later.
"""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import BadInput
from detector.run.metric_tags import best_metric_of
from detector.sync.progress import Progress
from detector.sync.record import FILES, PICTURES, Record, files_of, first_line, rows_of

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT_S = 60.0


def is_offline() -> bool:
    """Returns whether W&B is set to write to this disk only."""
    return os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun")


def sync_to_wandb(record: Record, progress: Progress,
                  save: Callable[[Progress], None]) -> tuple[Progress, list[str]]:
    """Sends what is new of a run to W&B; see Target.send. Nothing new: no connection is made."""
    digests = files_of(record.folder, (*FILES, *PICTURES))
    changed = [path for path, digest in digests.items() if progress.files.get(path) != digest]
    if progress.run and progress.lines == len(record.lines) and not changed:
        return progress, []
    if os.environ.get("WANDB_MODE", "").lower() == "disabled":
        raise BadInput("WANDB_MODE=disabled sends nothing: unset it, or set WANDB_MODE=offline")
    progress = replace(progress, run=progress.run or uuid.uuid4().hex[:8])
    save(progress)
    import wandb
    try:
        run = open_run(record, progress)
        rows = send(run, record, progress, changed)
        place = f"upload it with: wandb sync {os.path.dirname(run.dir)}" if run.offline else run.url or ""
        run.finish(exit_code=0 if record.is_running or record.state in ("finished", "stopped") else 1)
        wandb.teardown()  # waits until W&B's own process has written everything
    except (wandb.errors.Error, TimeoutError) as error:
        raise BadInput(f"W&B has refused: {first_line(error)}. `wandb login` signs in; "
                       "WANDB_MODE=offline writes to this disk only") from error
    progress = replace(progress.with_lines(record, len(record.lines)), rows=rows, files={**progress.files, **digests})
    return progress, [place]


def open_run(record: Record, progress: Progress) -> "wandb.Run":
    """Returns the remote run, new or resumed."""
    import wandb
    settings = {"base_url": progress.url} if progress.url else {}
    run = wandb.init(
        project=progress.project, id=progress.run, name=record.name, resume="allow", job_type="train",
        dir=os.environ.get("WANDB_DIR") or str(record.folder),
        settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_TIMEOUT_S, x_disable_stats=True,
                                x_disable_meta=True, save_code=False, disable_git=True, **settings))
    run.config.update({**record.options, "environment": record.environment}, allow_val_change=True)
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def send(run: "wandb.Run", record: Record, progress: Progress, changed: list[str]) -> int:
    """Sends new lines, changed pictures and files; returns how many of W&B's own steps are used by then.

    The own steps are counted in sync.json, so that the server drops what a sync that was cut short had sent before.
    """
    import wandb
    rows = rows_of(record.lines, best_metric_of(record.options))
    count, last_step = progress.rows, max((line["step"] for line in record.lines), default=0)
    for line, row in zip(record.lines[progress.lines:], rows[progress.lines:]):
        run.log({"step": line["step"], "_timestamp": record.time_of(line["step"]), **row}, step=count)
        count += 1
    pictures = {path.rpartition(".")[0]: wandb.Image(str(record.folder / path)) for path in changed if "/" in path}
    if pictures:
        run.log({"step": last_step, **pictures}, step=count)
        count += 1
    copies = Path(run.dir) / "record"  # W&B has a config.yaml of its own, and would link files that it does not have
    copies.mkdir()
    for path in changed:
        if "/" not in path:
            run.save(str(shutil.copyfile(record.folder / path, copies / path)), base_path=run.dir, policy="now")
    return count

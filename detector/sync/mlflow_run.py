"""A run in MLflow: its options as params, environment as tags, numbers as metrics, files as artifacts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import BadInput, shorten
from detector.run.metric_tags import best_metric_of
from detector.sync.progress import Progress
from detector.sync.record import FILES, PICTURES, Record, files_of, first_line, rows_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_METRICS, MAX_PARAMS = 1000, 100  # of one request
MAX_VALUE = 500                      # letters of a param or tag that every version of MLflow takes
ENVIRONMENT = {  # defaults of MLflow's environment variables
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4"}  # seven, MLflow's own default, take minutes
STATES = {"finished": "FINISHED", "stopped": "KILLED"}  # of a run that no process trains; others: FAILED


def sync_to_mlflow(record: Record, progress: Progress,
                   save: Callable[[Progress], None]) -> tuple[Progress, list[str]]:
    """Sends what is new of a run to an MLflow server; see Target.send."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    try:
        client = MlflowClient(progress.url)
        progress = ensure_run(client, record, progress)
        save(progress)
        notes = send_options(client, record, progress.run)
        progress = send_lines(client, record, progress, save)
        progress = send_files(client, record, progress, save)
        if record.is_running:
            client.update_run(progress.run, status="RUNNING")
        else:
            client.set_terminated(progress.run, STATES.get(record.state, "FAILED"), milliseconds(record, None))
    except (MlflowException, OSError, ImportError) as error:  # OSError: of a request; ImportError: of mlflow-skinny
        raise BadInput(f"MLflow at {progress.url} cannot be used: {first_line(error)}. What was sent stays; the same "
                       "command sends the rest") from error
    return progress, [*notes, f"{progress.url.rstrip('/')}/#/experiments/{experiment_of(client, progress)}/runs/"
                      f"{progress.run}"]


def experiment_of(client: "MlflowClient", progress: Progress) -> str:
    """Returns the id of the experiment, which is made if there is none."""
    experiment = client.get_experiment_by_name(progress.project)
    return experiment.experiment_id if experiment else client.create_experiment(
        progress.project, tags={"mlflow.experimentKind": "custom_model_development"})  # what its pages show first


def ensure_run(client: "MlflowClient", record: Record, progress: Progress) -> Progress:
    """Returns the progress in the remote run; a new one if there is none, or if it was deleted."""
    from mlflow.exceptions import MlflowException
    experiment = experiment_of(client, progress)
    if progress.run:
        try:
            if client.get_run(progress.run).info.lifecycle_stage == "active":
                return progress
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    environment = {name: value for name, value in record.environment.items() if value not in ("", [], None)}
    tags = {f"environment.{name}": shorten_value(value) for name, value in environment.items()}
    if record.environment.get("commit"):
        tags["mlflow.source.git.commit"] = str(record.environment["commit"])
    run = client.create_run(experiment, milliseconds(record, 0), tags, record.name)
    return Progress(progress.to, progress.url, progress.project, progress.name, run.info.run_id)


def send_options(client: "MlflowClient", record: Record, run: str) -> list[str]:
    """Sends the options that the remote run lacks. MLflow cannot change params: changed ones are named in a line."""
    from mlflow.entities import Param
    known = client.get_run(run).data.params
    options = {name: shorten_value(value) for name, value in record.options.items() if value not in ("", [])}
    new = [Param(name, value) for name, value in options.items() if name not in known]
    for first in range(0, len(new), MAX_PARAMS):
        client.log_batch(run, params=new[first:first + MAX_PARAMS])
    changed = [name for name, value in options.items() if known.get(name, value) != value]
    return [f"MLflow keeps the first value of options that have changed since: {shorten(changed)}"] if changed else []


def send_lines(client: "MlflowClient", record: Record, progress: Progress,
               save: Callable[[Progress], None]) -> Progress:
    """Sends the logged lines that are new, and saves the progress before and after each request."""
    from mlflow.entities import Metric
    rows = rows_of(record.lines, best_metric_of(record.options))
    progress = progress.with_lines(record, arrived(client, record, progress, rows))
    for until in batch_ends(rows, progress.lines):
        metrics = [Metric(tag, value, milliseconds(record, line["step"]), line["step"])
                   for line, row in zip(record.lines[progress.lines:until], rows[progress.lines:until])
                   for tag, value in row.items()]
        save(replace(progress, begun=until))
        for first in range(0, len(metrics), MAX_METRICS):
            client.log_batch(progress.run, metrics=metrics[first:first + MAX_METRICS])
        progress = progress.with_lines(record, until)
        save(progress)
    return progress


def arrived(client: "MlflowClient", record: Record, progress: Progress, rows: list[dict[str, float]]) -> int:
    """Returns how many lines the server has.

    After a sync that was cut short, the last begun batch of lines counts as sent if its last metric is in the server's
    history.
    """
    last = min(progress.begun, len(rows)) - 1
    if last < progress.lines or not rows[last]:
        return progress.lines
    step, tag = record.lines[last]["step"], list(rows[last])[-1]
    return last + 1 if any(metric.step == step for metric in client.get_metric_history(progress.run, tag)) \
        else progress.lines


def batch_ends(rows: list[dict[str, float]], start: int) -> Iterator[int]:
    """Yields, for each request, the index behind its last line. It holds as many lines as fit, at least one.

    Args:
        rows: the metrics of each line by tag.
        start: index of the first line to send.
    """
    size = 0
    for index in range(start, len(rows)):
        if size and size + len(rows[index]) > MAX_METRICS:
            yield index
            size = 0
        size += len(rows[index])
    if start < len(rows):
        yield len(rows)


def send_files(client: "MlflowClient", record: Record, progress: Progress,
               save: Callable[[Progress], None]) -> Progress:
    """Sends the files that are new or have changed; a file of the same name is replaced."""
    for path, digest in files_of(record.folder, (*FILES, *PICTURES)).items():
        if progress.files.get(path) != digest and (record.folder / path).is_file():
            folder = Path(path).parent.as_posix()
            client.log_artifact(progress.run, str(record.folder / path), None if folder == "." else folder)
            progress = replace(progress, files={**progress.files, path: digest})
            save(progress)
    return progress


def milliseconds(record: Record, step: int | None) -> int:
    """Returns when a step was done, in milliseconds since 1970; step 0: the start of the run; None: its end so far."""
    last = max((line["step"] for line in record.lines), default=0)
    return int(1000 * record.time_of(last if step is None else step))


def shorten_value(value: object) -> str:
    """Returns an option as text that MLflow takes."""
    text = str(value).replace("'", "") if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE - 3] + "..."

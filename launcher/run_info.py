"""A run as the launcher knows it: its run folder and config, and the jobs that were submitted for it."""

from pathlib import Path

from detector.config.load import load_config, run_folder
from detector.config.names import named_run, no_such_run
from detector.config.schema import Config
from detector.errors import BadInput
from detector.run.files import CONFIG_FILE, JOBS_FILE, append_json_line, read_json_lines
from launcher.backends import BACKENDS


def resolve_run(verb: str, arguments: tuple[str, ...]) -> tuple[Path, Config]:
    """Returns the absolute run folder and the config of `train CONFIG key=value ...` or `evaluate RUN key=value ...`.

    Raises:
        BadInput: no config or run is named, or it cannot be read.
    """
    positional = [argument for argument in arguments if not argument.startswith("-")]
    if not positional:
        raise BadInput(f"{verb} needs a {'run folder' if verb == 'evaluate' else 'config file'}. `fleet-rcnn {verb} "
                       "--help` shows the arguments")
    if verb == "evaluate":
        run = Path(named_run(positional[0]))
        config_file = run / CONFIG_FILE
        if not run.is_dir():
            raise no_such_run(positional[0])
        if not config_file.is_file():
            raise BadInput(f"{positional[0]} is not a run folder: it has no {CONFIG_FILE}. `fleet-rcnn jobs` lists the "
                           "runs")
        overrides = [argument for argument in positional[1:] if "=" in argument]
        return run.absolute(), load_config(str(config_file), overrides)
    config = load_config(positional[0], positional[1:])
    return run_folder(config).absolute(), config


def add_job_record(run: Path, **values) -> None:
    """Appends a record to slurm/jobs.jsonl: a job of this run was submitted, or has started.

    Args:
        values: job (name), verb, log; of a submission also backend (the value of --on) and command (as typed); of a
            start also restart, step (newest checkpoint) and nodes.

    Raises:
        BadInput: the file cannot be written.
    """
    append_json_line(run / JOBS_FILE, **values)


def job_records(run: Path) -> list[dict]:
    """Returns the records of slurm/jobs.jsonl, the newest last."""
    return [record for record in read_json_lines(run / JOBS_FILE) if isinstance(record.get("job"), str)]


def backend_of(run: Path) -> str:
    """Returns the backend that the last job was submitted to: a value of --on; "local" for a run without a job."""
    return backend_in(job_records(run))


def backend_in(records: list[dict]) -> str:
    """Returns what `backend_of` does, from the records of the run's jobs."""
    named = [record["backend"] for record in records if record.get("backend") in BACKENDS]
    return named[-1] if named else "slurm" if records else "local"

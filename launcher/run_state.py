"""The state of a run, from its scheduler, its status.json, and the process that holds its lock."""

import contextlib
import enum
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from detector.errors import BadInput
from detector.run.files import STATUS_FILE
from detector.run.heartbeat import read_heartbeats
from detector.run.lock import Liveness, Owner, has_live_heartbeat, read_owner
from detector.run.status import read_status
from launcher.backends import JobState, load_backend
from launcher.run_info import backend_in, job_records

FINAL_STATES = ("finished", "stopped", "failed")  # states of status.json in which no process trains
WELL_ENDED = ("COMPLETED", "UNKNOWN")  # states of a job that say nothing about how its run has ended


class Phase(enum.Enum):
    """The phase of a run, as a program may read it."""

    WAITING = "waiting"    # its job is in the queue
    RUNNING = "running"
    FINISHED = "finished"  # trained to its last step
    STOPPED = "stopped"    # stopped early and saved; a start continues it
    FAILED = "failed"      # ended by an error, killed, or ended by the scheduler
    UNKNOWN = "unknown"    # the scheduler does not answer, or the run is on another machine and gives no sign of life

    @property
    def is_over(self) -> bool:
        return self in (Phase.FINISHED, Phase.STOPPED, Phase.FAILED)


@dataclass(frozen=True)
class RunFacts:
    """The facts that the state of a run depends on."""

    status: dict                   # of status.json; empty if there is none
    job: str = ""                  # the job that has the run, or had it last; "" for a run without a job
    job_state: JobState | None = None  # None: not known, because the scheduler does not answer
    has_started: bool = False      # the job has started
    verb: str = "train"            # of the job
    owner: Owner = field(default_factory=Owner)
    gives_signs: bool = False      # heartbeats change; only read where the owner is on another machine
    step: int = 0                  # of status.json or the newest heartbeat
    records: list[dict] = field(default_factory=list)  # of the run's jobs
    backend: str = "local"


@dataclass(frozen=True)
class RunState:
    """The state of a run and the job that it is about; `job` is "" where a process without a job has the run."""

    text: str
    phase: Phase
    job: str = ""
    job_state: JobState | None = None


class Schedulers:
    """The answers of the schedulers, each asked once for its queue; one that does not answer is not asked again.

    Args:
        note: called with a sentence about a scheduler that does not answer.
    """

    def __init__(self, note: Callable[[str], None]):
        self.note = note
        self.queues: dict[str, dict[str, JobState] | None] = {}
        self.silent: set[str] = set()

    def states(self, backend: str, jobs: list[str], is_finished: bool) -> dict[str, JobState] | None:
        """Returns the states of those of the jobs that are known; None if the scheduler does not answer.

        Jobs in the queue are looked up there. If none is, the last one is asked for, except for a finished run.
        """
        queue = self.queue(backend)
        if queue is None:
            return None
        known = {job: queue[job] for job in jobs if job in queue}
        if not known and is_finished:
            return {jobs[-1]: JobState("UNKNOWN", over=True)}
        if not known:
            state = self.ask(backend, lambda: load_backend(backend).state(jobs[-1]))
            return None if state is None else {jobs[-1]: state}
        return known

    def queue(self, backend: str) -> dict[str, JobState] | None:
        """Returns the queue of a backend; None if its scheduler does not answer, or this machine has none."""
        if backend not in self.queues:
            self.queues[backend] = self.ask(backend, load_backend(backend).queue)
        return self.queues[backend]

    def ask(self, backend: str, question: Callable[[], object]):
        """Returns the answer of a scheduler; None, and a note, if it gives none."""
        if backend in self.silent:
            return None
        try:
            return question()
        except BadInput as error:  # the run folders are still worth reading
            self.silent.add(backend)
            self.note(f"the states of jobs are unknown: {error}")
            return None


def collect_facts(run: Path, schedulers: Schedulers, job: str = "") -> RunFacts:
    """Reads the facts about a run.

    Args:
        job: the job to speak of; "": the one that has the run.

    Raises:
        OSError: the run folder cannot be read.
    """
    with contextlib.suppress(FileNotFoundError):
        open(run / STATUS_FILE, "rb").close()
    status, records = read_status(run), job_records(run)
    backend = backend_in(records)
    jobs = [job] if job else list(dict.fromkeys(record["job"] for record in records))
    is_finished = status.get("state") == "finished" and all(record.get("verb") != "evaluate" for record in records)
    states = schedulers.states(backend, jobs, is_finished) or {} if jobs else {}
    current = current_job(jobs, states, records)
    own = [record for record in records if record["job"] == current]
    return RunFacts(status, current, states.get(current), any("restart" in record for record in own),
                    own[-1].get("verb", "train") if own else "train", read_owner(run),
                    step=max([status.get("step", 0), *(heartbeat.step for heartbeat in read_heartbeats(run))]),
                    records=records, backend=backend)


def current_job(jobs: list[str], states: dict[str, JobState], records: list[dict]) -> str:
    """Returns the job that has the run: the first that runs, else the first that waits, else the last one; "" if none.

    Of two jobs that run, the one that has started first has the run, and the other is refused by its lock.
    """
    started = [record["job"] for record in records if "restart" in record]
    waiting = [job for job in jobs if job in states and not states[job].over]
    running = sorted((job for job in waiting if states[job].name in ("RUNNING", "SUSPENDED", "COMPLETING")),
                     key=lambda job: started.index(job) if job in started else len(started))
    return next(iter([*running, *waiting, *jobs[::-1]]), "")


def look_for_signs(facts: dict[Path, RunFacts]) -> dict[Path, bool]:
    """Returns whether each run on another machine gives signs of life; watches all of them at once, some seconds."""
    distant = [run for run, fact in facts.items() if fact.owner.liveness is Liveness.ELSEWHERE and not fact.job
               and fact.status.get("state") not in FINAL_STATES]
    if not distant:
        return {}
    with ThreadPoolExecutor(len(distant)) as pool:
        return dict(zip(distant, pool.map(has_live_heartbeat, distant)))


def state_of(facts: RunFacts) -> RunState:
    """Returns the state of a run."""
    run_state = facts.status.get("state", "")
    if facts.job and not (facts.job_state and facts.job_state.over and facts.owner.liveness is Liveness.ALIVE):
        if facts.job_state is None and run_state == "finished":
            return RunState(run_state, Phase.FINISHED, facts.job)
        if facts.job_state is None:
            return RunState(f"unknown (last state: {run_state or 'none'})", Phase.UNKNOWN, facts.job)
        if not facts.job_state.over:
            return state_in_queue(facts, run_state)
        if run_state in FINAL_STATES or facts.job_state.name not in WELL_ENDED:
            return state_after_job(facts, run_state)
    return state_of_process(facts, run_state)


def state_in_queue(facts: RunFacts, run_state: str) -> RunState:
    """Returns the state of a run whose job waits or runs."""
    name, reason = facts.job_state.name.lower(), facts.job_state.reason
    if name == "running":
        return RunState(f"running, {run_state}" if run_state else name, Phase.RUNNING, facts.job, facts.job_state)
    phase = Phase.RUNNING if name in ("suspended", "completing", "stopped", "signaling") else Phase.WAITING
    return RunState(f"{name} ({reason})" if reason else name, phase, facts.job, facts.job_state)


def state_after_job(facts: RunFacts, run_state: str) -> RunState:
    """Returns the state of a run whose job is over."""
    job_name, phase = facts.job_state.name, Phase.FAILED
    if facts.verb == "evaluate" and run_state in FINAL_STATES:
        is_bad = job_name not in (*WELL_ENDED, "CANCELLED")
        text, phase = (f"{run_state}, evaluate failed", Phase.FAILED) if is_bad else (run_state, Phase(run_state))
    elif run_state == "finished":
        text, phase = run_state, Phase.FINISHED
    elif job_name == "CANCELLED" and not facts.has_started:
        text, phase = "cancelled", Phase.STOPPED
    elif run_state == "stopped":
        text, phase = run_state if job_name in (*WELL_ENDED, "FAILED") else f"stopped ({job_name})", Phase.STOPPED
    else:
        text = "failed" if run_state == "failed" or job_name == "FAILED" else f"ended ({job_name})"
    return RunState(text, phase, facts.job, facts.job_state)


def state_of_process(facts: RunFacts, run_state: str) -> RunState:
    """Returns the state of a run that a process without a job has or had, or whose job Slurm has forgotten."""
    if run_state in FINAL_STATES:
        return RunState(run_state, Phase(run_state), facts.job, facts.job_state)
    if facts.owner.liveness is Liveness.ALIVE:
        return RunState(run_state or "starting", Phase.RUNNING)
    if facts.owner.liveness is Liveness.ELSEWHERE and not facts.job:
        if facts.gives_signs:
            return RunState(f"{run_state} on {facts.owner.host}", Phase.RUNNING)
        return RunState(f"no sign of life from {facts.owner.host}", Phase.UNKNOWN)
    if not run_state:
        text = f"ended ({facts.job_state.name})" if facts.job_state and facts.has_started else "never started"
        return RunState(text, Phase.STOPPED, facts.job, facts.job_state)
    verb = "ended" if facts.job and facts.owner.liveness is not Liveness.DEAD else "died"
    return RunState(f"{verb} at step {facts.step}", Phase.FAILED, facts.job, facts.job_state)

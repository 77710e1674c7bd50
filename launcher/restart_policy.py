"""The policy for restarts of a Slurm job, as pure functions: may a start go ahead, and what follows an end.

slurm_job.py collects the facts and carries out the decisions.
"""

import enum
import signal
from dataclasses import dataclass

from detector.errors import BAD_INPUT, OK
from launcher.processes import STOP_SIGNALS

STARTS_WITHOUT_PROGRESS = 1  # restarts that may bring no new checkpoint before the next start is refused
STARTS_AFTER_EXCUSE = 3      # the same, after a stop request or a lost node
STOP_SIGNAL_STATUSES = tuple(128 + number for number in STOP_SIGNALS)
KILLED_STATUS = 128 + signal.SIGKILL
# Statuses of srun itself, such as a node that refuses a task or an expired credential. The processes of a run end with
# smaller ones, also when a signal kills them.
SRUN_STATUSES = range(160, 256)


@dataclass(frozen=True)
class EarlierRestart:
    """An earlier restart of the same job, from slurm/jobs.jsonl."""

    restart: int  # 1 for the first restart
    step: int     # newest checkpoint when it began


@dataclass(frozen=True)
class StartFacts:
    """The facts that the decision about a start depends on."""

    restart: int       # 0: the first start of the job
    max_requeues: int  # run.max_requeues
    step: int          # newest checkpoint
    earlier: tuple[EarlierRestart, ...] = ()  # of this job, the newest last, without this start
    last_start_excused: bool = False  # the last start was stopped by a request, or lost a node
    finished: bool = False            # the training has reached its last step
    must_make_progress: bool = True   # False for an evaluation, which writes no checkpoints


@dataclass(frozen=True)
class StartDecision:
    allowed: bool
    reason: str = ""  # of a refusal


def decide_start(facts: StartFacts) -> StartDecision:
    """Decides whether a job may start.

    A start is refused when all restarts are used, or when restarts brought no new checkpoint: one such restart is
    enough after a failure, three after a stop from outside or a lost node. Slurm may still send signals to a preempted
    job when it starts the job again, and a node that is back may not take tasks at first.
    """
    if facts.restart > facts.max_requeues:
        return StartDecision(False, f"all {facts.max_requeues} restarts are used (run.max_requeues)")
    if facts.finished or not facts.must_make_progress:
        return StartDecision(True)
    tries = STARTS_AFTER_EXCUSE if facts.last_start_excused else STARTS_WITHOUT_PROGRESS
    if len(facts.earlier) < tries:
        return StartDecision(True)
    compared = facts.earlier[-tries]
    if compared.step == facts.step:
        return StartDecision(False, f"no progress since restart {compared.restart}, which also began at step "
                                    f"{facts.step}. The log above shows why it ended")
    return StartDecision(True)


class Outcome(enum.Enum):
    """The decision about the end of a start."""

    DONE = "done"              # the job ends with the status of its processes: finished, or bad input
    FAILED = "failed"          # the same, after a failure
    REQUEUE = "requeue"        # Slurm is asked to requeue the job
    STOPPED = "stopped early"  # ended before its time, and no requeue is requested


@dataclass(frozen=True)
class EndFacts:
    """The facts that the decision about an end depends on."""

    status: int         # exit status of srun
    step: int           # newest checkpoint
    restarts: int       # how often Slurm has restarted the job
    max_requeues: int   # run.max_requeues
    stopped_early: bool = False   # a rank has stopped early, or status.json says so
    failure_recorded: bool = False  # a rank has ended badly and left a file in slurm/failed
    starting: bool = False          # status.json says that no step was begun yet
    saved_step: int | None = None   # step and duration of the checkpoint of an early stop
    saved_in_s: float | None = None
    job_state: str = "RUNNING"      # state of the job in Slurm
    silent_nodes: tuple[str, ...] = ()  # nodes of the job whose slurmd does not answer
    bad_input: bool = False         # a rank has found bad input, and the others ended with it
    may_requeue: bool = True        # False for a job that was submitted with --no-requeue


@dataclass(frozen=True)
class EndDecision:
    outcome: Outcome
    reason: str = ""


def was_stopped(facts: EndFacts) -> bool:
    """Returns whether the start was stopped from outside: by a stop signal, or killed as a whole by Slurm.

    A rank that is killed alone leaves a file in slurm/failed, written by the process that started it.
    """
    if facts.bad_input:
        return False
    killed_by_slurm = facts.status == KILLED_STATUS and not facts.failure_recorded
    signalled_in_start_up = facts.status in STOP_SIGNAL_STATUSES and facts.starting
    return facts.stopped_early or killed_by_slurm or signalled_in_start_up


def is_failure(facts: EndFacts) -> bool:
    """Returns whether the start ended on its own with an error that is not the user's."""
    return not was_stopped(facts) and not facts.bad_input and facts.status not in (OK, BAD_INPUT)


def decide_end(facts: EndFacts) -> EndDecision:
    """Decides what follows the end of a start: done, failed, requeue or stopped early."""
    if was_stopped(facts):
        return _requeue(facts, _describe_saved(facts))
    if not is_failure(facts):
        return EndDecision(Outcome.DONE)
    if facts.silent_nodes:
        return _requeue(facts, f"{', '.join(facts.silent_nodes)} does not answer, step {facts.step} is on disk")
    if facts.starting and facts.status in SRUN_STATUSES:
        return _requeue(facts, f"srun could not start all tasks, step {facts.step} is on disk")
    return EndDecision(Outcome.FAILED, f"ended with exit status {facts.status}")


def _requeue(facts: EndFacts, cause: str) -> EndDecision:
    """Requeues, unless Slurm has already cancelled or requeued the job, or all restarts are used."""
    if facts.job_state != "RUNNING":
        return EndDecision(Outcome.STOPPED,
                           f"{cause}; Slurm is ending the job ({facts.job_state}), so no requeue is requested")
    if not facts.may_requeue:
        return EndDecision(Outcome.STOPPED, f"{cause}; not requeued: the job was submitted with --no-requeue. Submit "
                                            "the run again to continue")
    if facts.restarts >= facts.max_requeues:
        return EndDecision(Outcome.STOPPED, f"{cause}; not requeued: all {facts.max_requeues} restarts are used "
                                            "(run.max_requeues). Submit the run again to continue")
    return EndDecision(Outcome.REQUEUE, f"{cause}; requeue requested (restart {facts.restarts + 1} of "
                                        f"{facts.max_requeues})")


def _describe_saved(facts: EndFacts) -> str:
    if facts.stopped_early and facts.saved_in_s is not None:
        return f"saved step {facts.saved_step} in {facts.saved_in_s:.1f} s"
    return f"stopped before there was anything to save; step {facts.step} is on disk"

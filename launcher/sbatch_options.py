"""The options of sbatch and srun: parsed as a user writes them, and written into scripts.

OPTIONS knows those of sbatch from Slurm 22.05 to 24.11; those of a site's plugins are read from `sbatch --help`.
"""

import re
import shlex
import subprocess
from collections.abc import Iterable

from detector.config.parsing import did_you_mean
from detector.errors import combine_mistakes

SHORT = {"A": "account", "a": "array", "b": "begin", "D": "chdir", "M": "clusters", "C": "constraint", "S": "core-spec",
         "c": "cpus-per-task", "d": "dependency", "m": "distribution", "e": "error", "x": "exclude",
         "B": "extra-node-info", "G": "gpus", "h": "help", "H": "hold", "i": "input", "J": "job-name", "L": "licenses",
         "k": "no-kill", "F": "nodefile", "w": "nodelist", "N": "nodes", "n": "ntasks", "o": "output",
         "O": "overcommit", "s": "oversubscribe", "p": "partition", "q": "qos", "Q": "quiet", "t": "time",
         "V": "version", "v": "verbose", "W": "wait"}
OTHER_NAMES = {"tasks-per-node": "ntasks-per-node", "tasks": "ntasks", "workdir": "chdir", "share": "oversubscribe",
               "cluster": "clusters"}
NO_VALUE, OPTIONAL_VALUE, VALUE = "no value", "an optional value", "a value"
WITHOUT_VALUE = """contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot requeue
spread-job stepmgr test-only usage use-min-nodes verbose version wait""".split()
WITH_OPTIONAL_VALUE = "exclusive get-user-env nice no-kill oom-kill-step propagate resv-ports".split()
WITH_VALUE = """account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint
container container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node
gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user
mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority profile qos
reservation segment signal sockets-per-node switches thread-spec threads-per-core time time-min tmp tres-bind
tres-per-task uid wait-all-nodes wckey wrap""".split()
OPTIONS = {**dict.fromkeys(WITHOUT_VALUE, NO_VALUE), **dict.fromkeys(WITH_OPTIONAL_VALUE, OPTIONAL_VALUE),
           **dict.fromkeys(WITH_VALUE, VALUE)}
# Options of srun that sbatch lacks, and those of the container plugin pyxis.
SRUN_OPTIONS = {
    **OPTIONS, "wait": VALUE,
    **dict.fromkeys("""container-entrypoint container-entrypoint-log container-mount-home container-readonly
container-remap-root container-writable disable-status exact label multi-prog no-allocate no-container-entrypoint
no-container-mount-home no-container-remap-root overlap preserve-env pty unbuffered""".split(), NO_VALUE),
    **dict.fromkeys("compress immediate kill-on-bad-exit".split(), OPTIONAL_VALUE),
    **dict.fromkeys("""accel-bind bcast container-env container-image container-mounts container-name container-save
container-workdir cpu-bind epilog het-group jobid max-exit-timeout max-threads mpi prolog relative send-libs
slurmd-debug task-epilog task-prolog threads treewidth""".split(), VALUE)}
SRUN_SHORT = {**SHORT, "E": "preserve-env", "I": "immediate", "K": "kill-on-bad-exit", "l": "label", "r": "relative",
              "T": "threads", "u": "unbuffered", "X": "disable-status", "Z": "no-allocate"}
KNOWN = {"sbatch": OPTIONS, "srun": SRUN_OPTIONS}
FREE_TEXT = ("comment", "job-name", "mail-type")  # values that may hold blanks without quotes

PROCESSES = "the number of processes decides it. Write --processes N or --gpus N, and --nodes N"
LOGS = "`logs` reads the log in the run folder"
ONE_JOB = "sbatch must return the job's id at once. `fleet-rcnn check` asks sbatch --test-only"
REFUSED = {
    "array": "--array FILE submits one run for each line of FILE. Write --array FILE%N to run N of them at a time",
    "output": LOGS, "error": LOGS, "open-mode": f"{LOGS}, which a requeued job continues",
    "chdir": "the job runs in the folder from which it is submitted. Submit it from there",
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket"), PROCESSES),
    "gpus-per-task": "each process takes the GPU of its local rank among all GPUs of its node. Write --gpus N",
    "gpus-per-socket": "each node must have the same number of GPUs. Write --gpus N",
    "tres-per-task": "the number of processes decides it. Write --gpus N and --cores N",
    "gpu-bind": "each process takes the GPU of its local rank, and must see all GPUs of its node",
    "tres-bind": "each process takes the GPU of its local rank, and must see all GPUs of its node",
    "clusters": "jobs, logs and cancel speak to the cluster of this machine. Submit from a login node of that cluster",
    "wrap": "the job has a script. Write shell commands into --setup",
    **dict.fromkeys(("wait", "parsable", "quiet", "test-only"), ONE_JOB),
    **dict.fromkeys(("help", "usage", "version"), "it submits nothing. Type it to sbatch itself"),
    **dict.fromkeys(("uid", "gid"), "the job runs as the user who submits it"),
}
ONE_SRUN = "the script states it, equal to the job's request"
REFUSED_OF_SRUN = {
    **{name: reason for name, reason in REFUSED.items() if name not in ("gpu-bind", "wait", "quiet")},
    **dict.fromkeys(("nodes", "cpus-per-task", "cpus-per-gpu", "kill-on-bad-exit", "gpus", "gpus-per-node"), ONE_SRUN),
    **dict.fromkeys(("export", "export-file"), "the processes need the variables of the job. Write export lines into "
                                               "--setup"),
    **dict.fromkeys(("jobid", "relative", "het-group", "no-allocate", "nodelist", "exclude"),
                    "each step runs on all nodes of its own job"),
    "pty": "no terminal is there", "multi-prog": "the script names the program",
    "job-name": "it names a step. Write --sbatch=--job-name=NAME",
    "time": "a step must not end before its job. Write --hours N",
    **dict.fromkeys(("account", "partition", "qos", "reservation", "begin", "dependency", "hold", "licenses"),
                    "it concerns the job and not its step. Write it as --sbatch"),
}


def parse_options(texts: Iterable[str], program: str = "sbatch") -> list[tuple[str, str]]:
    """Returns the options of sbatch, or of srun, as (long name, value).

    The value is empty for an option that has none.

    Args:
        texts: options as on the program's command line, one or several in each text: `--qos=long -w node2`.

    Raises:
        BadInput: with each option that is unknown, lacks its value, or is refused, and the reason.
    """
    options, mistakes = [], []
    for text in texts:
        try:
            tokens = shlex.split(text)
        except ValueError:
            mistakes.append(f"{text}: a quote is not closed")
            continue
        while tokens:
            option, mistake = parse_option(tokens, program)
            if mistake:
                mistakes.append(mistake)
            else:
                options.append(option)
    if mistakes:
        raise combine_mistakes(f"options of {program}", mistakes)
    return options


def parse_option(tokens: list[str], program: str) -> tuple[tuple[str, str], str]:
    """Takes one option, and its value, from the front of the list; returns it as (name, value), and its mistake."""
    token = tokens.pop(0)
    match = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?|-([A-Za-z])(.*)", token, re.DOTALL)
    if match is None:
        return ("", ""), (f"{token!r}: no option of {program}. Options start with a dash; quote a value that holds "
                          f"blanks, such as \"--comment='two words'\"")
    short = SRUN_SHORT if program == "srun" else SHORT
    name, value = (full_name(match[1], program), match[2]) if match[1] else (short.get(match[3], match[3]), match[4])
    kind = kind_of(name, program)
    if kind is None:
        return (name, ""), f"{token}: {program} has no such option{suggestion(token, program)}"
    if not match[1] and kind is NO_VALUE and value:  # -vQ is -v -Q
        tokens.insert(0, f"-{value}")
        value = ""
    if value and (match[1] or value[0] == "="):  # -w=node2, which Slurm would read as a node called =node2
        value = value[1:]
    elif not value and kind is VALUE and tokens and (not tokens[0].startswith("-") or name == "nice"):
        value = tokens.pop(0)
    while name in FREE_TEXT and tokens and not tokens[0].startswith("-"):
        value = f"{value} {tokens.pop(0)}"
    return (name, value or ""), mistake_of(token, name, value or "", kind, program)


def mistake_of(token: str, name: str, value: str, kind: str, program: str) -> str:
    """Returns why an option cannot be taken; empty if it can."""
    refused = REFUSED_OF_SRUN if program == "srun" else REFUSED
    if name in refused and not (name in ("gpu-bind", "tres-bind") and value == "none"):
        return f"{token}: this option cannot be stated, because {refused[name]}"
    if kind is VALUE and not value.strip():
        return f"{token}: this option needs a value. Write --{name}=..."
    if kind is NO_VALUE and value:
        return f"{token}: this option takes no value. Write --{name}"
    if "\n" in value:
        return f"--{name}: its value has several lines"
    return ""


def full_name(name: str, program: str) -> str:
    """Returns the name of an option that may be shortened, as long as no other one starts so, or have another name."""
    name = OTHER_NAMES.get(name, name)
    longer = [option for option in KNOWN[program] if option.startswith(name)]
    return longer[0] if len(longer) == 1 else name


def kind_of(name: str, program: str) -> str | None:
    """Returns whether an option takes a value; None for an unknown option. A site's program is asked last."""
    return KNOWN[program].get(name) or site_options(program).get(name)


def suggestion(token: str, program: str) -> str:
    """Returns " (did you mean --qos?)", or an empty text."""
    return did_you_mean(token.partition("=")[0], [f"--{name}" for name in KNOWN[program]])


def site_options(program: str) -> dict[str, str]:
    """Returns the options that `sbatch --help` of this site lists; none where there is no sbatch."""
    try:
        text = subprocess.run([program, "--help"], capture_output=True, text=True, errors="replace", timeout=15,
                              stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_help(text)


def parse_help(text: str) -> dict[str, str]:
    """Parses the output of `sbatch --help`: option -> whether it takes a value."""
    rows = re.findall(r"^\s+(?:-\w,?\s+)?--([a-z][\w-]*)(\[=|=)?", text, re.MULTILINE)
    return {name: {"": NO_VALUE, "=": VALUE, "[=": OPTIONAL_VALUE}[sign] for name, sign in rows}


def option_text(name: str, value: str) -> str:
    """Returns an option as on the command line: --qos=long, or --exclusive."""
    return f"--{name}={value}" if value else f"--{name}"


def quote_value(value: str) -> str:
    """Returns a value for an #SBATCH line: as for a shell, except that sbatch reads a backslash as an escape."""
    return shlex.quote(value.replace("\\", "\\\\"))

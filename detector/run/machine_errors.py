"""Errors that come from the machine, not from the code, as one line with the cause and a remedy."""

import errno
import os
import re
import resource
import sys

from detector.errors import BAD_INPUT, FAILED

# Disk full, over quota, file too large, read-only, permission denied; a file in place of a folder, or a folder in place
# of a file; a name that is too long.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR,
               errno.EISDIR, errno.ENAMETOOLONG)
LOST_DISK_ERRORS = (errno.ESTALE, errno.EIO, errno.ESHUTDOWN)  # of a network disk; ESHUTDOWN: of Lustre
# Of a network disk as well, such as an expired ticket of Kerberos; without a file, of a connection.
LOST_SERVER_ERRORS = (errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
                      errno.ENODEV, errno.ENOKEY, errno.EKEYEXPIRED)
TOO_MANY_FILES = re.compile(r"too many open files|received \d+ items of ancdata", re.IGNORECASE)
NO_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d+|/dev/shm", re.IGNORECASE)
NO_HOST_MEMORY = re.compile(r"(can't|cannot) allocate memory|unable to mmap|failed to map|bad_alloc", re.IGNORECASE)
NO_PROCESS = re.compile(r"can't start new thread|fork: |resource temporarily unavailable", re.IGNORECASE)
LOST_PEER = re.compile(r"gloo/|connection (was )?(closed|reset|aborted|refused)|socket.*(closed|error)|broken pipe",
                       re.IGNORECASE)
SHARED_MEMORY = "/dev/shm"  # where Linux keeps it; a container may lack it
NO_TEMPORARY_FOLDER = re.compile("no usable temporary directory", re.IGNORECASE)


def explain(error: BaseException) -> tuple[str, int] | None:
    """Returns message and exit status of an error that the machine causes; None for any other error."""
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    name = type(error).__name__
    first_line = (text or name).strip().splitlines()[-1 if "Traceback" in text else 0]
    if number and not error.filename and lacks_shared_memory():  # locks of processes have files there without a name
        return (f"no shared memory for loader workers: {SHARED_MEMORY} is missing or cannot be written ({first_line}). "
                "Give the container one (docker: --shm-size=8g), or set run.num_workers=0"), BAD_INPUT
    if number in LOST_DISK_ERRORS or number in LOST_SERVER_ERRORS and error.filename:
        return (f"{error.filename or 'a file'}: {error.strerror}. Its disk, or the server of the disk, has failed or "
                "refuses this machine: give the command again once it answers, or name another folder (run.folder, "
                "data.root, --out)"), BAD_INPUT
    if number in DISK_ERRORS:
        return (f"{error.filename or 'a file'}: {error.strerror}. Check its permissions and the space on its disk, or "
                "name another folder (run.folder, data.cache, --out)"), BAD_INPUT
    if isinstance(error, FileNotFoundError) and not error.filename and not working_folder_exists():
        return "the working folder was deleted: change to another with cd, and give the command again", BAD_INPUT
    if number in (errno.EMFILE, errno.ENFILE) or TOO_MANY_FILES.search(text):
        return too_many_files(), BAD_INPUT
    if NO_TEMPORARY_FOLDER.search(text):
        return f"no temporary folder: {first_line}. Set TMPDIR to a folder that can be written", BAD_INPUT
    if name == "OutOfMemoryError":  # of torch.cuda
        return (f"out of GPU memory: {first_line}. Lower batch.micro_batch_size, augment.max_size or augment.min_size; "
                "batch.size and the results of a step stay the same with a smaller micro_batch_size"), FAILED
    if isinstance(error, (RuntimeError, OSError)) and NO_SHARED_MEMORY.search(text):
        return (f"no shared memory for the batches of the loader workers: {first_line}. Enlarge /dev/shm (docker: "
                "--shm-size=8g), or lower run.num_workers"), FAILED
    if isinstance(error, MemoryError) or number == errno.ENOMEM or NO_HOST_MEMORY.search(text):
        return (f"out of memory: {first_line}. Lower run.num_workers or batch.micro_batch_size, request more memory, "
                f"or raise the limit of `ulimit -v`{memory_limit()}"), BAD_INPUT if memory_limit() else FAILED
    if isinstance(error, (RuntimeError, OSError)) and (number == errno.EAGAIN or NO_PROCESS.search(text)):
        return (f"no more processes or threads: {first_line}. Raise the limit of `ulimit -u`, or lower run.num_workers "
                "and OMP_NUM_THREADS"), BAD_INPUT
    return None


def lacks_shared_memory() -> bool:
    """Returns whether this machine, or container, has no folder for shared memory that can be written."""
    return sys.platform == "linux" and not os.access(SHARED_MEMORY, os.W_OK | os.X_OK)


def is_closed_output(error: BaseException) -> bool:
    """Returns whether the reader of this process's output has ended, as `| head` does."""
    return isinstance(error, BrokenPipeError) and error.errno != errno.ESHUTDOWN


def working_folder_exists() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def is_lost_peer(error: BaseException) -> bool:
    """Returns whether a collective failed because another rank has ended."""
    if type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError"):
        return True
    return isinstance(error, (RuntimeError, ConnectionError)) and bool(LOST_PEER.search(str(error)))


def too_many_files() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    how = "set `ulimit -n 4096`" if hard > soft else "raise the limit: a new shell, or an administrator, can do that"
    return f"too many open files: this shell allows {soft} (`ulimit -n`). Lower run.num_workers, or {how}"


def memory_limit() -> str:
    """Returns the limit of the address space in GiB, in brackets; empty if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if soft == resource.RLIM_INFINITY else f" (now {soft / 2**30:.1f} GiB)"

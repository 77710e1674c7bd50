"""torchrun's five variables: all that a process of the detector knows of where it runs."""

import os
import socket


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def local_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """The environment of one of `world` processes on this machine.

    Threads are shared out, or each process would take every core for itself.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // world)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port)}

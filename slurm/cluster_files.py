"""What slurm/local-cluster writes into its folder before it starts anything."""

import argparse
import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

PROGRAMS = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/usr/local/sbin", "/sbin"])
BOOT = """mount --bind {place}/hosts /etc/hosts && hostname "$1" && exec {python} -IS -c '
import signal                       # the first process of a node: orphans come to it, and are forgotten when they end
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True: signal.pause()' {place} "$1"
"""
# linuxproc finds the processes of a step below its slurmstepd; with this, orphans stay there (prctl 36: subreaper).
STEPD = """#!{python} -IS
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv({stepd!r}, sys.argv)
"""


class CannotDo(Exception):
    """One line that says what is wrong, and what to do."""


def program(name: str) -> str:
    path = shutil.which(name, path=PROGRAMS)
    if path is None:
        raise CannotDo(f"{name} is not installed; on Debian or Ubuntu: apt-get install slurm-wlm munge")
    return path


def write_files(place: Path, said: argparse.Namespace, host_address: str, node_addresses: list[str]) -> None:
    for folder in ("log", "state", "spool", "dev"):
        (place / folder).mkdir(parents=True)
    first = random.randint(30300, 32700 - said.nodes)  # above the ports of jobs, below those of outgoing connections
    host, nodes = socket.gethostname().split(".")[0], [f"node{number}" for number in range(1, said.nodes + 1)]
    addresses = dict(zip(nodes, node_addresses, strict=True))
    (place / "munge.key").write_bytes(os.urandom(256))
    (place / "munge.key").chmod(0o600)
    for number in range(said.gpus):
        (place / "dev" / f"gpu{number}").symlink_to("/dev/null")  # Slurm wants a device file for each
    last = f"[0-{said.gpus - 1}]" if said.gpus > 1 else "0"
    (place / "gres.conf").write_text(f"Name=gpu File={place}/dev/gpu{last}\n" if said.gpus else "")
    version = re.search(r"(\d+)\.(\d+)", subprocess.check_output([program("slurmd"), "-V"], text=True))
    disabled = (int(version[1]), int(version[2])) >= (24, 5)
    (place / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if disabled else 'cgroup/v1'}\n")
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{host_address} {host}"]
    for node, address in addresses.items():
        lines += [f"{address} {node}", f"::ffff:{address} {node}.mapped"]  # PyTorch looks both up
    (place / "hosts").write_text("\n".join(lines) + "\n")
    gres = f" Gres=gpu:{said.gpus}" if said.gpus else ""
    conf = Path(__file__).with_name("local-cluster.conf").read_text().format(
        host=host, address=host_address, port=first, user=pwd.getpwuid(os.geteuid()).pw_name, place=place, kill_wait=said.kill_wait)
    conf += "".join(f"NodeName={node} NodeAddr={address} Port={first + number} CPUs={said.cpus} RealMemory=256000{gres}\n"
                    for number, (node, address) in enumerate(addresses.items(), 1))
    conf += f"PartitionName=main Nodes=ALL Default=YES DefaultTime=60 PriorityTier=1 GraceTime={said.grace}\n"
    conf += "PartitionName=high Nodes=ALL DefaultTime=60 PriorityTier=10 PreemptMode=OFF\n"
    conf += "PartitionName=short Nodes=ALL MaxTime=10 DefaultTime=5\n"
    (place / "slurm.conf").write_text(conf)
    (place / "boot").write_text(BOOT.format(place=place, python=sys.executable))
    (place / "slurmstepd").write_text(STEPD.format(python=sys.executable, stepd=program("slurmstepd")))
    (place / "slurmstepd").chmod(0o755)
    (place / "nodes").write_text("\n".join(nodes) + "\n")

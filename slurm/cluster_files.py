"""The files of a local cluster: slurm.conf and whatever else Slurm needs, written before any daemon starts."""

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

PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/usr/local/sbin", "/sbin"])
# The first process of a node. Orphaned processes become its children; ignoring SIGCHLD removes them when they end.
BOOT = """mount --bind {folder}/hosts /etc/hosts && hostname "$1" && exec {python} -IS -c '
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True: signal.pause()' {folder} "$1"
"""
# Slurm's plugin linuxproc finds the processes of a job step below its slurmstepd. prctl 36 (PR_SET_CHILD_SUBREAPER)
# keeps orphaned processes there.
STEPD = """#!{python} -IS
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv({stepd!r}, sys.argv)
"""


class ClusterError(Exception):
    """One line that says what is wrong and what to do."""


def find_program(name: str) -> str:
    """Returns the path of a program. Raises ClusterError if it is not installed."""
    path = shutil.which(name, path=PROGRAM_PATH)
    if path is None:
        raise ClusterError(f"{name} is not installed; on Debian or Ubuntu: apt-get install slurm-wlm munge")
    return path


def write_files(folder: Path, args: argparse.Namespace, host_address: str, node_addresses: list[str]) -> None:
    """Writes all files of a cluster.

    Args:
        args: the options of `up`: nodes, gpus, cpus, grace, kill_wait.
        host_address: the address of this machine, as seen by the nodes.
        node_addresses: one for each node.
    """
    for name in ("log", "state", "spool", "dev"):
        (folder / name).mkdir(parents=True)
    # slurmctld listens on the first port, node i on first_port + i: above the ports of jobs, and below those that
    # systems use for outgoing connections.
    first_port = random.randint(30300, 32700 - args.nodes)
    nodes = {f"node{number}": address for number, address in enumerate(node_addresses, 1)}
    (folder / "munge.key").write_bytes(os.urandom(256))
    (folder / "munge.key").chmod(0o600)
    write_gpus(folder, args.gpus)
    version = re.search(r"(\d+)\.(\d+)", subprocess.check_output([find_program("slurmd"), "-V"], text=True))
    can_disable_cgroups = (int(version[1]), int(version[2])) >= (24, 5)
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if can_disable_cgroups else 'cgroup/v1'}\n")
    host = socket.gethostname().split(".")[0]
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{host_address} {host}"]
    for node, address in nodes.items():
        lines += [f"{address} {node}", f"::ffff:{address} {node}.mapped"]  # PyTorch looks up both
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    (folder / "slurm.conf").write_text(slurm_conf(folder, args, host, host_address, nodes, first_port))
    (folder / "boot").write_text(BOOT.format(folder=folder, python=sys.executable))
    (folder / "slurmstepd").write_text(STEPD.format(python=sys.executable, stepd=find_program("slurmstepd")))
    (folder / "slurmstepd").chmod(0o755)
    (folder / "nodes").write_text("\n".join(nodes) + "\n")


def write_gpus(folder: Path, gpus: int) -> None:
    """Writes gres.conf, and for each GPU the device file that Slurm requires."""
    for number in range(gpus):
        (folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
    numbers = f"[0-{gpus - 1}]" if gpus > 1 else "0"
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/dev/gpu{numbers}\n" if gpus else "")


def slurm_conf(folder: Path, args: argparse.Namespace, host: str, host_address: str, nodes: dict[str, str],
               first_port: int) -> str:
    """Returns slurm.conf: local-cluster.conf with its values, the nodes (name -> address) and the partitions."""
    gres = f" Gres=gpu:{args.gpus}" if args.gpus else ""
    conf = Path(__file__).with_name("local-cluster.conf").read_text().format(
        host=host, address=host_address, port=first_port, user=pwd.getpwuid(os.geteuid()).pw_name, folder=folder,
        kill_wait=args.kill_wait)
    for number, (node, address) in enumerate(nodes.items(), 1):
        conf += (f"NodeName={node} NodeAddr={address} Port={first_port + number} CPUs={args.cpus} "
                 f"RealMemory=256000{gres}\n")
    conf += f"PartitionName=main Nodes=ALL Default=YES DefaultTime=60 PriorityTier=1 GraceTime={args.grace}\n"
    conf += "PartitionName=high Nodes=ALL DefaultTime=60 PriorityTier=10 PreemptMode=OFF\n"
    conf += "PartitionName=short Nodes=ALL MaxTime=10 DefaultTime=5\n"
    return conf

"""A network for each node of a local cluster: a veth pair from the node to a bridge on this machine.

The functions below take the folder of the cluster. Its file `network` holds the name of the bridge and the first three
numbers of all addresses; without the file the nodes share the network of this machine.
"""

import random
import subprocess
from pathlib import Path

from cluster_files import ClusterError, find_program

HOST_NUMBER = 254        # last number of this machine's address on the bridge
FIRST_NODE_NUMBER = 11   # last number of the address of node1


def run_ip(*args: str, in_network_of: int = 0) -> None:
    """Runs `ip` of iproute2, in the network of a process if its id is given. Raises ClusterError if it fails."""
    inside = [find_program("nsenter"), f"--target={in_network_of}", "--net"] if in_network_of else []
    completed = subprocess.run([*inside, find_program("ip"), *args], capture_output=True, text=True)
    if completed.returncode:
        raise ClusterError(f"--network: ip {' '.join(args)}: {completed.stderr.strip()}; without --network the nodes "
                           "share the network of this machine")


def read_network(folder: Path) -> list[str]:
    """Returns the name of the bridge and the first three numbers of all addresses; an empty list without --network."""
    return (folder / "network").read_text().split() if (folder / "network").exists() else []


def create_bridge(folder: Path) -> None:
    """Creates the bridge with a random name and a random network, and the file `network`."""
    name, prefix = f"fl{random.randrange(10**6)}", f"10.{random.randint(64, 127)}.{random.randint(0, 255)}"
    run_ip("link", "add", name, "type", "bridge")
    (folder / "network").write_text(f"{name} {prefix}")
    run_ip("addr", "add", f"{address_of(folder)}/24", "dev", name)
    run_ip("link", "set", name, "up")


def remove_bridge(folder: Path) -> None:
    """Removes the bridge; the veth pairs disappear with their nodes."""
    if read_network(folder):
        run_ip("link", "del", read_network(folder)[0])
        (folder / "network").unlink()


def address_of(folder: Path, number: int = 0) -> str:
    """Returns the address of the node with this number (1 for node1); 0: of this machine, as seen by the nodes."""
    if read_network(folder):
        return f"{read_network(folder)[1]}.{FIRST_NODE_NUMBER + number - 1 if number else HOST_NUMBER}"
    return f"127.0.0.{FIRST_NODE_NUMBER + number - 1}" if number else "127.0.0.1"


def veth_name(folder: Path, node: str) -> str:
    """Returns the name of this machine's end of the veth pair of a node."""
    return f"{read_network(folder)[0]}n{number_of(node)}"


def number_of(node: str) -> int:
    return int(node.removeprefix("node"))


def connect(folder: Path, node: str, first_process: int) -> None:
    """Creates the veth pair of a node that has just booted, and sets its address."""
    outside = veth_name(folder, node)
    run_ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(first_process))
    run_ip("link", "set", outside, "master", read_network(folder)[0], "up")
    address = address_of(folder, number_of(node))
    for command in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
        run_ip(*command.split(), in_network_of=first_process)


def remove_veth(folder: Path, node: str) -> None:
    """Removes the veth pair of a node that is gone; the system would do so only later."""
    if read_network(folder):
        subprocess.run([find_program("ip"), "link", "del", veth_name(folder, node)], capture_output=True)


def cut(folder: Path, node: str) -> None:
    """Disconnects a running node. Raises ClusterError without --network."""
    if not read_network(folder):
        raise ClusterError("the nodes share the network of this machine; `up --network` gives each its own")
    run_ip("link", "set", veth_name(folder, node), "down")


def uncut(folder: Path, node: str) -> None:
    """Connects a node again."""
    run_ip("link", "set", veth_name(folder, node), "up")

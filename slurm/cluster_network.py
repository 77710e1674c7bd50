"""Networks of the nodes of slurm/local-cluster: each has its own, with a cable to a bridge on this machine."""

import random
import subprocess
from pathlib import Path

from cluster_files import CannotDo, program

HOST = 254  # the last number of this machine's address on the bridge; node1 has 11


def ip(*words: str, of: int = 0) -> None:
    """iproute2, in the network of a process if one is given."""
    inside = [program("nsenter"), f"--target={of}", "--net"] if of else []
    done = subprocess.run([*inside, program("ip"), *words], capture_output=True, text=True)
    if done.returncode:
        raise CannotDo(f"--network: ip {' '.join(words)}: {done.stderr.strip()}")


def network(place: Path) -> list[str]:
    """The name of the bridge and the first three numbers of all addresses; nothing where nodes share this machine's."""
    return (place / "network").read_text().split() if (place / "network").exists() else []


def lay_bridge(place: Path) -> None:
    name, first_three = f"fl{random.randrange(10**6)}", f"10.{random.randint(64, 127)}.{random.randint(0, 255)}"
    ip("link", "add", name, "type", "bridge")
    (place / "network").write_text(f"{name} {first_three}")
    ip("addr", "add", f"{address(place)}/24", "dev", name)
    ip("link", "set", name, "up")


def remove_bridge(place: Path) -> None:
    """The cables have gone with their nodes."""
    if network(place):
        ip("link", "del", network(place)[0])
        (place / "network").unlink()


def address(place: Path, number: int = 0) -> str:
    """Of the node with this number, or of this machine as the nodes see it."""
    if network(place):
        return f"{network(place)[1]}.{10 + number if number else HOST}"
    return f"127.0.0.{10 + number}" if number else "127.0.0.1"


def cable(place: Path, node: str) -> str:
    """This machine's end of it."""
    return f"{network(place)[0]}n{number_of(node)}"


def number_of(node: str) -> int:
    return int(node.removeprefix("node"))


def plug_in(place: Path, node: str, first_process: int) -> None:
    here = cable(place, node)
    ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(first_process))
    ip("link", "set", here, "master", network(place)[0], "up")
    for words in (f"addr add {address(place, number_of(node))}/24 dev eth0", "link set eth0 up", "link set lo up"):
        ip(*words.split(), of=first_process)


def unplug(place: Path, node: str) -> None:
    """Of a node that is gone: the system takes the cable away by itself, but later."""
    if network(place):
        subprocess.run([program("ip"), "link", "del", cable(place, node)], capture_output=True)


def pull(place: Path, node: str) -> None:
    if not network(place):
        raise CannotDo("the nodes share the network of this machine; `up --network` gives each its own")
    ip("link", "set", cable(place, node), "down")


def replug(place: Path, node: str) -> None:
    ip("link", "set", cable(place, node), "up")

"""`annotate`: label images in the browser, helped by a run."""

import json
import os
import shlex
import socket
from collections.abc import Sequence

from detector.annotation.label_set import LABELLED, UNLABELLED
from detector.annotation.open_source import open_source
from detector.annotation.routes import Site
from detector.annotation.server import LOOPBACK, open_server
from detector.annotation.suggester import Suggester
from detector.errors import BadInput
from detector.inference.predictor import Predictor, load_predictor

ANY_HOST = ("0.0.0.0", "::")


def annotate(source: str, classes: str, split: str, run: str, score: float, host: str, port: int,
             follow_links: bool) -> None:
    """Serves the page until Ctrl-C, then tells how to train on the labels.

    Args:
        source: a folder of images, or a data set.
        classes: names, separated by commas.
        split: "": the only one.
        run: a run folder whose detections are suggested; "": none.
        score: at which the slider of the suggestions stands at first.
        host: the address that the server listens on.
        port: 0: any free one.
        follow_links: take files outside the folder, too.

    Raises:
        BadInput: a mistake in the options, or a source or a run that cannot be read.
        KeyboardInterrupt: at the end.
    """
    if not 0 <= score <= 1:
        raise BadInput(f"--score {score:g}: a number from 0 to 1")
    names = [name.strip() for name in classes.split(",")] if classes else []
    if "" in names:
        raise BadInput(f"--classes {classes}: a name is empty. Name them with a comma between two, such as head,eye")
    labels, notes = open_source(source, names, split, follow_links)
    predictor = load_predictor(run, "", "auto") if run else None
    notes += _add_classes(labels.classes, predictor)
    if not labels.classes:
        raise BadInput(f"{source} has no annotations yet: name the classes, such as --classes head,eye")
    suggester = Suggester(predictor, labels) if predictor else None
    is_open = host not in LOOPBACK
    machine = socket.gethostname()
    hosts = frozenset({host.lower(), machine.lower(), socket.getfqdn().lower()}) if is_open else frozenset()
    site = Site(labels, suggester, score, hosts, is_open)
    with open_server(site, host, port) as server:
        number = server.server_address[1]
        for note in notes:
            print(f"note: {note}")
        print("\n".join(describe(site, host, number, machine)), flush=True)
        if suggester:
            suggester.start()
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print(f"\n{summary(site)}", flush=True)
            raise


def _add_classes(classes: list[str], predictor: Predictor | None) -> Sequence[str]:
    """Uses the run's classes where the images have none; returns a note if the run and the images share no class."""
    if not predictor:
        return []
    if not classes:
        classes += predictor.classes
    common = [name for name in predictor.classes if name in classes]
    return [] if common else [f"the run detects {', '.join(predictor.classes)}, of which none is a class of these "
                              f"images ({', '.join(classes)}): it suggests nothing"]


def describe(site: Site, host: str, port: int, machine: str) -> list[str]:
    """Returns the lines that are printed at the start."""
    name = machine if host in ANY_HOST else f"[{host}]" if ":" in host else host
    lines = [f"images: {len(site.labels.indices)} of {site.labels.root}, written as {site.labels.layout}",
             f"open http://{name}:{port}/?token={site.token}"]
    if not site.is_open:
        lines.append(f"from another machine: ssh -L {port}:{name}:{port} {machine}, and the same address")
    else:
        lines.append("anybody who can reach this machine and knows the token can write the labels; traffic is not "
                     "encrypted")
    return [*lines, "Ctrl-C ends the server; all changes are saved as they are made"]


def summary(site: Site) -> str:
    """Returns how many images are labelled, and the commands that train on them where there are boxes."""
    labels, states = site.labels, [site.labels.states[index] for index in site.labels.indices]
    done = f"{len(states) - states.count(UNLABELLED)} of {len(states)} images are labelled; all is saved"
    if LABELLED not in states:
        return done
    config = {"data": {"root": labels.root, "format": labels.layout, "train": labels.split, "val": 0.2},
              "model": {"backbone": "resnet50_fpn", "weights": "coco"}}
    file = shlex.quote(f"{os.path.basename(os.path.abspath(labels.root))}.yaml")
    text = shlex.quote(json.dumps(config, ensure_ascii=False))
    return f"{done}\ntrain on it: echo {text} > {file} && fleet-rcnn train {file}"

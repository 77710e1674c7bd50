"""Is every damaged checkpoint found, and what does it cost to look for the damage?

    python tests/benchmarks/bit_flips.py [--trials 1000] [--rounds 9] [--backbone resnet50_fpn] [--folder /on/the/disk]

Writes two small checkpoints of a run, damages the newer one at random (a flipped bit, a cut, a block of zeros, bytes at the
end), and looks for the newest whole one: each time the damaged file must be named and the older one be taken. Two of three
damages are flipped bits. Then the verification of a large checkpoint with momentum, on a warm page cache, is compared with
torch.load of it, each round in a process of its own, as in a run that resumes. Exits 1 if a damage is passed over. Appends
a JSON line to tests/benchmarks/results/bit_flips.jsonl.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from measuring import append_result, format_spread, ratio

from detector.config.schema import Evaluate, Model
from detector.model.faster_rcnn import build_model
from detector.run.checkpoint_files import FORMAT, newest_readable, read_checkpoint, write_checkpoint
from detector.run.file_digest import verify_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backbone", default="resnet50_fpn", help="of the large checkpoint")
    parser.add_argument("--folder", default=None, help="on the disk to be measured; default: that of temporary files")
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    parser.add_argument("--time", default="", help=argparse.SUPPRESS)  # a checkpoint, in the process of a round
    args = parser.parse_args()
    if args.time:
        print(json.dumps(time_reading(Path(args.time))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        small, large = [write_checkpoint(Path(folder) / name, content) for name, content in (
            ("small", small_content(2)), ("large", large_content(args.backbone)))]
        write_checkpoint(small.parent.parent, small_content(1)).rename(small.with_name("step-00000001.pt"))
        write_checkpoint(small.parent.parent, small_content(2))
        counts, passed_over = damage_and_look(small, args.trials)
        lines = [json.loads(subprocess.run([sys.executable, __file__, "--time", str(large)], capture_output=True, text=True,
                                           check=True).stdout) for _ in range(args.rounds)]
        seconds = {name: [line[name] for line in lines] for name in lines[0]}
        line = {"trials": args.trials, "counts": counts, "passed_over": passed_over, "seconds": seconds,
                "checkpoint_mib": round(large.stat().st_size / 2**20, 1),
                "ratio": ratio(seconds["verify"], seconds["torch.load"])}
        append_result("bit_flips", line, args.out)
    print(f"{args.trials} damaged checkpoints ({', '.join(f'{count} {kind}' for kind, count in counts.items())}): "
          f"{len(passed_over)} were passed over{passed_over or ''}")
    print(f"verifying {line['checkpoint_mib']} MiB takes {statistics.median(seconds['verify']):.3f} s, which is "
          f"{format_spread(line['ratio'], 3)} of torch.load")
    sys.exit(1 if passed_over else 0)


def small_content(step: int) -> dict:
    model = {f"layer{number}.weight": torch.randn(8, 8, generator=torch.Generator().manual_seed(number)) for number in range(8)}
    return {"format": FORMAT, "step": step, "model": model, "moments": {name: {"momentum_buffer": value.clone()} for name, value in
            model.items()}, "config": {"optim": {"lr": 0.5}}, "classes": ["cat", "dog"], "global_batch": 2}


def large_content(backbone: str) -> dict:
    """Returns the content of a checkpoint of a detector that SGD trained."""
    model = build_model(Model(backbone=backbone), Evaluate(min_size=800), 80)
    moments = {name: {"momentum_buffer": torch.randn_like(value)} for name, value in model.named_parameters()}
    return {"format": FORMAT, "step": 1, "model": model.state_dict(), "moments": moments, "config": {}}


def damage_and_look(newest: Path, trials: int) -> tuple[dict[str, int], list[str]]:
    """Returns how many damages of each kind were made, and those that were not found. The file is whole afterwards."""
    data, older = newest.read_bytes(), newest.with_name("step-00000001.pt")
    counts, passed_over, rng = Counter(), [], random.Random(0)
    for _ in range(trials):
        kind, place, damaged = damage(data, rng)
        newest.write_bytes(damaged)
        path, content, notes = newest_readable(newest.parent.parent)
        counts[kind] += 1
        if path != older or content["step"] != 1 or len(notes) != 1 or str(newest) not in notes[0]:
            passed_over.append(f"{kind} at {place}")
    newest.write_bytes(data)
    assert newest_readable(newest.parent.parent)[0] == newest
    return dict(counts), passed_over


def damage(data: bytes, rng: random.Random) -> tuple[str, int, bytes]:
    """Returns the kind, the place and the damaged bytes."""
    kind = rng.choice(["flipped bit"] * 6 + ["cut", "zeros", "bytes at the end"])
    at = rng.randrange(len(data))
    if kind == "flipped bit":
        return kind, at, data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
    if kind == "cut":
        return kind, at, data[:at]
    if kind == "bytes at the end":
        return kind, at, data + rng.randbytes(1 + at % 512)
    zeroed = data[:at] + bytes(min(512, len(data) - at)) + data[at + 512:]
    return (kind, at, zeroed) if zeroed != data else damage(data, rng)


def time_reading(path: Path) -> dict[str, float]:
    """Returns the seconds of reading and verifying a checkpoint, whose pages are in memory."""
    torch.load(path.parents[2] / "small" / "checkpoints" / "step-00000002.pt", weights_only=True)  # imports what it needs
    verify_file(path)
    seconds, functions = {}, {"torch.load": lambda: torch.load(path, weights_only=True), "verify": lambda: verify_file(path),
                              "read_checkpoint": lambda: read_checkpoint(path)}
    for name, function in functions.items():
        started_at = time.perf_counter()
        function()
        seconds[name] = time.perf_counter() - started_at
    return seconds


if __name__ == "__main__":
    main()

"""Not a test: runs `python -m detector` on a machine with a fault, which environment variables describe.

SLOW_RANK: from the third image on, this rank's loader takes ten minutes for each. STOP_IN_EVALUATION: a stop signal
comes with the first batch of an evaluation. FILE_LIMIT: bytes that a file can have, as on a full disk. SLOW_DRAWING:
what is drawn of an evaluation takes ten minutes.
"""

import os
import resource
import signal
import sys
import time

import detector.data.dataset as examples

SLOW = os.environ.get("SLOW_RANK") == os.environ.get("RANK", "0")
loaded = []


def slowly(self, key, original=examples.DetectionDataset.__getitem__):
    loaded.append(key)
    if len(loaded) > 12:
        time.sleep(600)
    return original(self, key)


if SLOW:  # also in the loader's workers, which import this file
    examples.DetectionDataset.__getitem__ = slowly

if os.environ.get("SLOW_DRAWING"):  # in the scorer's process, which imports this file
    import detector.training.async_evaluation as scorer
    scorer.draw_validation = lambda *_: time.sleep(600)

if __name__ == "__main__":
    import detector.evaluation.evaluate as evaluate
    from detector.__main__ import main

    def stopped(*arguments, original=evaluate.predict_batch):
        os.kill(os.getpid(), signal.SIGUSR1)
        return original(*arguments)
    if os.environ.get("STOP_IN_EVALUATION"):
        evaluate.predict_batch = stopped
    if os.environ.get("FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_LIMIT"]),) * 2)
    sys.exit(main(sys.argv[1:]))

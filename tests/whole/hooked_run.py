"""Helper of tests: runs `python -m detector` with a fault that environment variables describe.

SLOW_RANK=N: the loader of rank N needs ten minutes for each image after the first twelve.
STOP_IN_EVALUATION=1: a stop signal arrives with the first batch of an evaluation.
FILE_LIMIT=BYTES: the largest file that can be written, as on a full disk.
SLOW_STEP=1: every step takes ten minutes.
SLOW_DRAWING=1: drawing the images of an evaluation takes ten minutes.
"""

import os
import resource
import signal
import sys
import time

import detector.data.dataset

DELAY_S = 600
FAST_IMAGES = 12
loaded = []


def load_slowly(self, key, original=detector.data.dataset.DetectionDataset.__getitem__):
    loaded.append(key)
    if len(loaded) > FAST_IMAGES:
        time.sleep(DELAY_S)
    return original(self, key)


# Both hooks are installed at import, because loader workers and the scoring process import this file, too.
if os.environ.get("SLOW_RANK") == os.environ.get("RANK", "0"):
    detector.data.dataset.DetectionDataset.__getitem__ = load_slowly

if os.environ.get("SLOW_DRAWING"):
    import detector.training.scoring_process
    detector.training.scoring_process.draw_validation_images = lambda *_: time.sleep(DELAY_S)

if __name__ == "__main__":
    import detector.evaluation.evaluate
    from detector.__main__ import end_process, main

    def predict_after_stop_signal(*args, original=detector.evaluation.evaluate.predict_batch, **kwargs):
        os.kill(os.getpid(), signal.SIGUSR1)
        return original(*args, **kwargs)
    if os.environ.get("STOP_IN_EVALUATION"):
        detector.evaluation.evaluate.predict_batch = predict_after_stop_signal
    if os.environ.get("SLOW_STEP"):
        import detector.training.loop
        detector.training.loop.train_step = lambda *_args, **_options: (print("step begins", flush=True), time.sleep(DELAY_S))
    if os.environ.get("FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_LIMIT"]),) * 2)
    end_process(main(sys.argv[1:]))

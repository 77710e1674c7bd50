"""Parameters of COCO's evaluation, as in pycocotools' `cocoeval.Params` (cocodataset.org, "Detection evaluation")."""

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # iouThrs
RECALL_THRESHOLDS = np.linspace(0, 1, 101)   # recThrs
MAX_DETECTIONS = 100                         # maxDets[-1]: detections of one class in one image that count, by score
# areaRng and areaRngLbl: smallest and largest area of an object, square pixels.
AREA_RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}

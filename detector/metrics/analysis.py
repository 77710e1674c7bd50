"""Why a detector scores as it does: what each detection and each object is, and what every kind of error costs.

I images, N objects, K detections, C classes. Rows of detections are those of the Detections, rows of objects those of
the Dataset that were analysed, in their order. Overlap here is always at IoU 0.5; the kinds of error and what they cost
are TIDE's (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", sections 2.2 and 2.3).
"""

from dataclasses import dataclass

import numpy as np

# What a detection is; one of ERRORS, by number. The first two are no errors.
RIGHT, IGNORED, LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
ERRORS = ("right",         # found an object that no better detection of the class had found
          "ignored",       # hit a crowd or a difficult object, or is beyond the best 100 of its class and image
          "localisation",  # right class, overlap 0.1 to 0.5
          "class",         # overlap 0.5 or more, with an object of another class
          "both",          # wrong class, overlap 0.1 to 0.5
          "duplicate",     # a better detection had found the object
          "background",    # overlap below 0.1 with every object
          "missed")        # of objects alone: neither found, nor hit by a localisation or class error


@dataclass(frozen=True)
class Analysis:
    """The whole story of one evaluation; -1 stands where there is nothing to be found, as in the metrics."""

    classes: tuple[str, ...]                # [C]
    metrics: dict[str, float]               # the headline numbers: COCO's twelve, or VOC's
    per_class: dict[str, dict[str, float]]  # AP, AP50, AP75, APs, APm, APl (VOC: AP, AP_11point, APs, APm, APl),
                                            # and counts: objects, detections
    # Curves at IoU 0.5, over RECALL = 0, 0.01 ... 1 [101]
    precision: np.ndarray         # float32 [C, 101], best precision at this recall or more
    scores: np.ndarray            # float32 [C, 101], the score where that recall is reached; 0 where it never is
    mean_precision: np.ndarray    # float32 [101], over the classes that have objects
    # Of each detection, whatever its score: only better ones decide, so a threshold on scores changes nothing here
    detection_error: np.ndarray   # uint8 [K], RIGHT ... BACKGROUND
    detection_object: np.ndarray  # int64 [K], row of the object it found or comes nearest to for this error; -1: none
    detection_iou: np.ndarray     # float32 [K], overlap with that object, 0 where there is none
    # Of each object
    object_error: np.ndarray      # uint8 [N], RIGHT (found), IGNORED, MISSED, or LOCALISATION or CLASS: only hit so
    object_detection: np.ndarray  # int64 [N], row of the detection that found it; -1: none
    # What errors cost: AP at IoU 0.5 that would be gained if all of one kind were mended, by name
    ap50: float
    cost: dict[str, float]        # keys: localisation, class, both, duplicate, background, missed
    # At the score where F1 over all classes is best
    best_score: float
    f1: float
    confusion: np.ndarray         # int64 [C + 1, C + 1], rows: true class, columns: predicted; number 0 is background
    image_errors: np.ndarray      # int32 [I, 8], how often each of ERRORS occurs in an image, missed objects included
    image_weight: np.ndarray      # float32 [I], scores of its false detections plus 1 for each object not found
    # Do scores say how often detections are right? Ten bins of width 0.1
    bin_count: np.ndarray         # int64 [10], detections that are not ignored
    bin_score: np.ndarray         # float32 [10], their mean score, 0 in an empty bin
    bin_right: np.ndarray         # float32 [10], the share that is right
    calibration_error: float      # expected calibration error: mean of |bin_score - bin_right|, weighted by bin_count

    def worst_images(self, count: int) -> np.ndarray:
        """Indices of the images with the most weight of errors, the worst first; those without errors are left out."""
        order = np.argsort(-self.image_weight, kind="stable")[:count]
        return order[self.image_weight[order] > 0]

"""Details of py-faster-rcnn and jwyang/faster-rcnn.pytorch that only the published tables of 2017 need.

Each is one named function or class, which `base: recipe/original` switches on; the rest of the detector can be
understood without them.
"""

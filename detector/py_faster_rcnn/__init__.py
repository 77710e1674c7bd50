"""Details of py-faster-rcnn and jwyang/faster-rcnn.pytorch that only the published tables of 2017 need.

Each is one named function or class, which `base: recipe/original` switches on; the other rooms read without them.
"""

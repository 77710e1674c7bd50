"""The network: torchvision's bodies under two stages of our own.

A training step works on all B images of a batch at once, and asks no tensor what is in it, so that the host stays ahead
of the device. Its words:

canvas     the zeros that a resized image lies on, upper left; one size for all images of a batch (input.py)
truth      the objects of all images, padded to as many as one of them has, with a mask of the real ones (truth.py)
overlap    intersection over union; `coding` is boxes as deltas from others, `extent` the convention of their x2, y2
match      for each box the object that it overlaps most, and whether none overlaps that one more (sampling.py)
sample     so many boxes of each image to learn from: rows, and masks of positive and real ones (sampling.py)
cell       one place of a feature map; those of sampled anchors are computed again, with a gradient (cells.py)
survivors  what non-maximum suppression leaves, as a mask; on GPUs found in a fixed number of rounds (nms.py)
proposals  the best survivors of each image, padded, with a mask of the real ones (rpn.py)
atlas      all levels of a pyramid side by side on one map, so that one call pools all boxes (atlas.py)
folded     a frozen norm inside the convolution before it (folding.py)

tests/detector/model holds a plain loop, or torchvision's own module, beside each of these.
"""

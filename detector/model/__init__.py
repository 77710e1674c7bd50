"""The network: torchvision's backbones under an RPN and RoI heads of this package.

A training step works on all B images of a batch at once, with tensors of fixed shapes and masks instead of lists, so
that the host never waits for the device. This holds with the default options: evaluation waits, and so may training
with model.rpn.nms_rounds=0 or with a model.roi_pooling other than align. The terms:

padded image   a resized image in the upper left corner of a batch, zeros around it (preprocessing.py)
ground truth   the objects of all images, padded to the number of the image with most, and a mask `valid`
               (ground_truth.py)
box coder      IoU, clipping, and boxes as deltas from reference boxes (box_coder.py)
match          for each box the object with the highest IoU (matcher.py)
sample         a fixed number of boxes of each image that the losses use (sampling.py)
proposals      the best boxes of the RPN of each image after NMS, padded, and a mask `valid` (rpn.py)
NMS by rounds  non-maximum suppression with a fixed number of operations (ops/nms.py)
RPN patches    the inputs of the RPN's convolution at the sampled anchors alone (ops/rpn_patches.py)
pyramid map    all levels of a feature pyramid on one map, so that one call pools all boxes (ops/roi_align_pyramid.py)
folded norm    a frozen batch norm that the convolution before it applies (ops/frozen_batchnorm.py)

A state dict has torchvision's names. tests/detector/model compares each module with a plain loop or with torchvision's.
"""

"""What only the published tables of 2017 need (jwyang/faster-rcnn.pytorch, `base: recipe/original`)."""

"""Operations and layers written for speed; tests/detector/model/ops compares each with a plain loop or torchvision."""

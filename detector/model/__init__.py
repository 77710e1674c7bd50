"""The network, assembled from torchvision's parts."""

"""The network: torchvision's bodies under two stages of our own."""

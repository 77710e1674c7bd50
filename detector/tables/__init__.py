"""The published result tables beside what runs of this package measured."""

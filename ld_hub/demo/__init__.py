"""The demonstration: a painted data set, and the story of a teacher and its students told on it."""

from ld_hub.demo.dataset import make_demo_dataset

__all__ = ["make_demo_dataset"]

"""Tensor operations without state: boxes, bin distributions, grids of priors, NMS, sums over ranks."""

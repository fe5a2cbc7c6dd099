"""Parts that detectors are composed of: pyramid, towers, box coders, post-processing."""

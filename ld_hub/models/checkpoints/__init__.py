"""Weights in files, ours and others': saved models, conversion, published weights and what differs."""

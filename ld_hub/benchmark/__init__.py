"""What things cost: steps, detectors, scorers, memory."""

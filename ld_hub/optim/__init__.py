"""What decides the steps of a training, beside its loop: groups of parameters, averages, length, end and batch."""

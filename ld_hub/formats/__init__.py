"""What labelling tools write, a file for each: where the files of a split are, and what stands in one of them."""

"""Endings of the names of image files; looked at before anything that reads images is imported."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # of files that data sets hold
PICTURE_SUFFIXES = tuple(sorted((*IMAGE_SUFFIXES, ".gif")))  # of files that are looked at

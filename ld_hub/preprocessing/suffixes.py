"""Endings of the names of image and video files; looked at before anything that reads them is imported."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # of files that data sets hold
PICTURE_SUFFIXES = tuple(sorted((*IMAGE_SUFFIXES, ".gif")))  # of files that are looked at
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

"""The state of a segmenter, saved to a file and read back."""

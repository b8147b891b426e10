"""Training of Reuse-VOS."""

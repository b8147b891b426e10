"""Training of RDE-VOS."""

"""Training of RMNet."""

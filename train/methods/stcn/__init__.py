"""Training of STCN."""

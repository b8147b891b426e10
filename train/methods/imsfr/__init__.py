"""Training of IMSFR."""

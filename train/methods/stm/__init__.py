"""Training of STM."""

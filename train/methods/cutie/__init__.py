"""Training of Cutie."""

"""Training of XMem."""

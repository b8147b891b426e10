"""FP16: which nodes stay in float32, so that nothing overflows and no object is lost."""

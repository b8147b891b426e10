"""Models that are partly in float32: which layers stay there, found by following real objects."""

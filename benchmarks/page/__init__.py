"""One page of all that a machine can measure: the benchmark `report`."""

"""Many videos in one go: one process per worker, a report on all, and no work done twice."""

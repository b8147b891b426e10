"""vos-deploy-run: what it is given, the loop over the frames, and what it writes."""

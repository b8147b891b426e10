"""Training: clips, losses, the task of each method and one loop for all."""

"""Training of each method: `stages` are data and options, `task` what is done with a clip."""

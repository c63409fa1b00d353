"""What `skebm.trainer` is made of: steps, epochs, and the run on disk."""

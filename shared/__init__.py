"""What edge and admin must agree on, and nothing else."""

"""Win rates between runs, and the agreement of a judge with human labels."""

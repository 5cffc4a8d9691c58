"""Warm-up fine-tuning: temporary weights, checkpoints, and the model as it was afterwards."""

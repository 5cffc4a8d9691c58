"""Scorers of complexity and quality: their prompts, the rows they learn from, and their training."""

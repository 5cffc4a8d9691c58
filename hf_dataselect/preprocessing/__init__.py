"""Stage 1, preprocessing: what a sample is, as text, as tokens and as a model sees it."""

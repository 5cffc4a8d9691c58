"""A run on disk: the run folder, and the selected dataset to publish."""

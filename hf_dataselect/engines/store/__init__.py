"""Results on disk, keyed by content: numbers and vectors of rows, replies, atomic files, hashes of models."""

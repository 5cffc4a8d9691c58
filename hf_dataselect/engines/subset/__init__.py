"""Rows from scores and vectors: top k, k-center, facility location, diverse filter, clusters, targets, matchers."""

"""Runs compared with the baseline: PIR, SDF, STR, intervals, and the published methods."""

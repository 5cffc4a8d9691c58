"""Stage 3: benchmarks, comparison with the baseline (PIR, SDF, STR), judging of answers, and the report."""

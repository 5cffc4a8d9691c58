"""[`Runtime`]: ranks, batches, dtype, cache and account; token rows, model state, loading. Imports `store` only."""

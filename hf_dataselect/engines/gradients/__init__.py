"""The gradient of each row, projected: per-example collection, Adam, projections, layers."""

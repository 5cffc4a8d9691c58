"""Shared machinery: tensors, ranks, memory and caches. No engine knows a method or a stage."""

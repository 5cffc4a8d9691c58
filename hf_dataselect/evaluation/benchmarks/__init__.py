"""Kinds of benchmarks, one file each; loaded by name through [`benchmark`]."""

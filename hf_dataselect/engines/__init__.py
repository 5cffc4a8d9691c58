"""Tensors, ranks, stores and servers. No engine knows a method or a stage; each takes a [`Runtime`]."""

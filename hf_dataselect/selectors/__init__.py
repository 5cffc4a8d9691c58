"""Stage 2, selector construction: one file a method; the file's name is what users type."""

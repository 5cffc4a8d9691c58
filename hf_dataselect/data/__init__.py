"""Stage 1a, what a sample is: layouts, records, texts, tokens, images. Imports engines only."""

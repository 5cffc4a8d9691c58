"""Forward passes: losses, hidden states, one-shot losses, generation, sentence encoders, encoder-decoders."""

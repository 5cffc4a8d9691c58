"""Rules from indicators to the log loss of a fine-tuned model: what they predict, how they are fitted and kept."""

"""What is fitted before it can score: rules (Instruction-Mining, InstructionGPT-4) and scorers (DEITA)."""

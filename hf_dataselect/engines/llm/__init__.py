"""[`Judge`] answers in words, [`RewardModel`] in numbers, [`Generator`] continues token ids; here or on a server."""

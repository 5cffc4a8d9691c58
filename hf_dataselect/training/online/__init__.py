"""Selecting while training: what trains by a [`~hf_dataselect.policy.Policy`], inside the steps of `SFTTrainer`."""

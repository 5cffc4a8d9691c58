"""What the lm-evaluation-harness does not document."""

from typing import Any

from .installed import attribute


def share_ranks(lm: Any, accelerator: Any) -> None:
    """
    Let a model of the harness deal its rows over the ranks of an accelerator that it has not made itself: its
    `accelerator`, and the private `_rank` and `_world_size`. Seen on lm_eval 0.4.13; raises `ImportError` where they
    are missing.
    """
    attribute("lm_eval", lm, "_rank"), attribute("lm_eval", lm, "_world_size")
    lm.accelerator = accelerator
    lm._rank, lm._world_size = accelerator.process_index, accelerator.num_processes

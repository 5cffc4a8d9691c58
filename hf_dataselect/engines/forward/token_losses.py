"""Loss and rank of target tokens, from logits."""

import numpy as np
import torch


#: Bytes of float32 logits that a CPU takes the softmax of at a time.
SOFTMAX_BYTES = 2**22


def token_losses(
    logits: torch.Tensor, targets: torch.Tensor, mean_logit: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each target, and whether it is ranked first, float32 `(positions,)` each."""
    # On a CPU, the passes over the float32 copy are fast if it fits in the cache.
    rows = max(1, SOFTMAX_BYTES // (4 * logits.shape[-1])) if logits.device.type == "cpu" else len(logits)
    losses, hits = [], []
    for part, target in zip(logits.split(rows), targets.split(rows), strict=True):
        if mean_logit:
            part = torch.cat([part.float(), part.float().mean(-1, keepdim=True)], -1)
        part = part.log_softmax(-1, dtype=torch.float32)
        target_logprobs = part.gather(-1, target[:, None])[:, 0]
        losses.append(-target_logprobs)
        hits.append((target_logprobs >= part.amax(-1)).float())
    return torch.cat(losses), torch.cat(hits)


def token_ranks(logits: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """1 + tokens with a strictly higher logit than each target, float32 `(positions,)`; NaN beside a NaN."""
    own = logits.gather(-1, targets[:, None])
    ranks = ((logits > own).sum(-1) + 1).float()
    return ranks.masked_fill(logits.isnan().any(-1), torch.nan).cpu().numpy()

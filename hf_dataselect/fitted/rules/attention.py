"""The learned rule of arXiv 2308.12067: a small network with self-attention over the indicators of a row."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn


#: Of the paper's code: attention heads, blocks, learning rate of Adam, epochs over the subsets.
HEADS, BLOCKS, LEARNING_RATE, EPOCHS = 4, 2, 0.01, 20
WIDTH = 16
PREFIX = "regressor."


class AttentionRegressor(nn.Module):
    """
    Predicts a number for each row from its own indicators: each indicator is embedded, two blocks of self-attention
    (4 heads) with a residual connection and a linear layer follow, and a linear head reads the mean.

    Args:
        columns (`int`):
            Indicators per row.
    """

    def __init__(self, columns: int):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(columns, WIDTH) / WIDTH**0.5)
        self.place = nn.Parameter(torch.randn(columns, WIDTH) / WIDTH**0.5)
        self.attention = nn.ModuleList(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(BLOCKS))
        self.linear = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardised indicators `(n, columns)` -> `(n,)`."""
        hidden = rows[..., None] * self.direction + self.place
        for attention, linear in zip(self.attention, self.linear, strict=True):
            hidden = linear(hidden + attention(hidden, hidden, hidden, need_weights=False)[0])
        return self.head(hidden.mean(1))[:, 0]


def fit_attention(subsets: Sequence[np.ndarray], targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """
    Weights of an [`AttentionRegressor`] whose mean output over a subset's rows is fitted to the subset's target: one
    Adam step per subset, with linearly decaying learning rate, for 20 epochs.

    Args:
        subsets (`Sequence[np.ndarray]`):
            Standardised indicators of each subset's rows, `(rows, columns)`.
        targets (`np.ndarray`):
            `(subsets,)`, standardised.
        seed (`int`):
            Of initialization and order.

    Returns:
        `dict[str, np.ndarray]`: float64, for [`predict`].
    """
    rows, labels = [torch.from_numpy(np.asarray(values, np.float64)) for values in subsets], torch.from_numpy(targets)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = AttentionRegressor(rows[0].shape[1]).double()
        adam = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        # One step per epoch would be too few; without decay, the last subset would dominate.
        schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, EPOCHS * len(rows))
        for _ in range(EPOCHS):
            for i in torch.randperm(len(rows)).tolist():
                adam.zero_grad()
                ((network(rows[i]).mean() - labels[i]) ** 2).backward()
                adam.step()
                schedule.step()
    return {PREFIX + name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def predict(weights: Mapping[str, np.ndarray], rows: np.ndarray, block: int = 8192) -> np.ndarray:
    """
    Output of an [`AttentionRegressor`] with these weights for each row, float64 `(n,)`; NaN where an indicator is NaN.

    Raises:
        `RuntimeError`: weights of another network.
    """
    with torch.random.fork_rng(devices=[]):
        network = AttentionRegressor(rows.shape[1]).double().eval()
    own = {name.removeprefix(PREFIX): torch.tensor(w) for name, w in weights.items() if name.startswith(PREFIX)}
    network.load_state_dict(own)
    with torch.no_grad():
        parts = torch.from_numpy(np.asarray(rows, np.float64)).split(block)
        return torch.cat([network(part) for part in parts]).numpy() if len(rows) else np.zeros(0)

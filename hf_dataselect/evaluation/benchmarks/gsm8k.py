"""Grade-school mathematics (GSM8K, arXiv 2110.14168): the number at the end of a generated solution."""

from dataclasses import dataclass, field

from .generation import Generation


@dataclass(kw_only=True)
class GSM8K(Generation):
    """
    Word problems, right if the last number of the answer is that of the reference: behind `####` in the layout of
    GSM8K (arXiv 2110.14168), else its last one. See [`Generation`].

    Args:
        metrics (`list[str]`, *optional*, defaults to `["numeric_match"]`):
            See [`~metrics.NumericMatch`].
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Length of an answer at most: the steps come before the number.
        template (`str`, *optional*):
            Asks for the steps and then for the number.
    """

    metrics: list[str] = field(default_factory=lambda: ["numeric_match"])
    max_new_tokens: int = 512
    template: str = "{question}\n\nSolve this step by step. The last thing you write must be the answer, as a number."

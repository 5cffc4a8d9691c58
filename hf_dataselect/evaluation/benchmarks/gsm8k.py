"""Grade-school mathematics (GSM8K, arXiv 2110.14168): the last number of a generated solution."""

from dataclasses import dataclass, field

from .generation import Generation


@dataclass(kw_only=True)
class GSM8K(Generation):
    """
    Word problems; an answer is correct if its last number is that of the reference (in GSM8K's layout, the number
    after `####`). See [`Generation`].

    Args:
        metrics (`list[str]`, *optional*, defaults to `["numeric_match"]`):
            See [`~metrics.NumericMatch`].
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Maximum length of an answer, which includes the steps of the solution.
        template (`str`, *optional*):
            Prompt, which asks for the steps and then for the number.
    """

    metrics: list[str] = field(default_factory=lambda: ["numeric_match"])
    max_new_tokens: int = 512
    template: str = "{question}\n\nSolve this step by step. The last thing you write must be the answer, as a number."

"""[`Card`]: what is known of a method without running it. Imports nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """
    Bibliography and facts of a method with its default options, for `hf-dataselect methods`, the docs and the
    feasibility ranks (paper, Table 3).

    Args:
        title (`str`):
            One line: what is kept.
        paper (`str`, *optional*):
            arXiv id.
        features (`str`):
            Kind of feature (paper, section 3): none, human-designed or model-oriented.
        label_source (`str`):
            Where the quality label comes from.
        trained_llms (`int`):
            Language models trained to build the selector.
        small_llm (`bool`):
            Whether those are small ones, as GPT-2 is beside the pending fine-tune model.
        steps (`tuple[str]`):
            Steps of the selection algorithm.
        llm_uses (`int`):
            Steps that run a language model.
        code (`bool`):
            Whether the authors publish their code.
        model_free, dataset_free, chatgpt_free (`bool`):
            Whether it works on unchanged for another pending fine-tune model, another dataset, without ChatGPT/GPT-4.
        multi_turn (`str`):
            What is done with rows of several turns.
        images (`str`, *optional*):
            What is done with images of rows; nothing if empty, and then a method that reads texts says so.
        deviations (`tuple[str]`):
            Where this differs from the authors' code or paper.
        evidence (`str`, *optional*):
            What there is for it, and who repeated that.
    """

    title: str
    paper: str | None = None
    features: str = "none"
    label_source: str = "none"
    trained_llms: int = 0
    small_llm: bool = False
    steps: tuple[str, ...] = ("rank", "keep the top k")
    llm_uses: int = 0
    code: bool = True
    model_free: bool = True
    dataset_free: bool = True
    chatgpt_free: bool = True
    multi_turn: str = "rows are taken whole"
    images: str = ""
    deviations: tuple[str, ...] = ()
    evidence: str = ""

"""What the judge of a comparison will be asked at most, known before anything is trained."""

from collections.abc import Sequence

from ..engines.llm.judge_options import JudgeOptions
from ..evaluation.benchmark import Benchmark
from ..evaluation.benchmarks.instructions import Instructions
from ..evaluation.judging.win_rate import at_most


def judge_total(benchmarks: Sequence[Benchmark], options: JudgeOptions, to_train: int, to_compare: int) -> str | None:
    """
    Calls, tokens and money at most, in words; `None` if no benchmark asks a judge. What methods ask while they select
    is not part of it: each announces that itself, once for all budgets.

    Args:
        benchmarks (`Sequence[Benchmark]`):
            Prepared benchmarks.
        options ([`JudgeOptions`]):
            Prices.
        to_train (`int`):
            Runs that are still to be evaluated, whose answers a benchmark may have graded.
        to_compare (`int`):
            Runs whose answers are compared with a baseline's.
    """
    counted = [(benchmark.judge_calls(), to_train) for benchmark in benchmarks]
    counted += [
        (at_most(benchmark.questions, benchmark.max_new_tokens), to_compare)
        for benchmark in benchmarks
        if isinstance(benchmark, Instructions)
    ]
    calls, prompt, new = (sum(of[part] * times for of, times in counted) for part in range(3))
    if not calls:
        return None
    again = any(benchmark.judge_calls()[0] and not benchmark.at_end for benchmark in benchmarks)
    money = options.money(prompt, new)
    said = f"at most {calls:,} calls in all, about {prompt:,} prompt tokens and {new:,} new ones at most"
    said += ", and those of grading again at every evaluation before the end" if again else ""
    return said + ("" if money is None else f", at most about {money:,.2f}") + "; replies in the cache cost nothing"

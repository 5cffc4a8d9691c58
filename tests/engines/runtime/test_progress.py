"""Progress: lines where there is no terminal, silence on demand, and the time that a series of runs still takes."""

import io
import sys

import pytest
from tqdm.std import tqdm

from hf_dataselect.engines.runtime import progress
from hf_dataselect.engines.runtime.progress import Lines, Series, Task, in_words
from hf_dataselect.engines.runtime.runtime import Runtime


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(clock, monkeypatch, seconds: float, rows: int = 200, stream: io.StringIO | None = None, **options) -> str:
    stream = io.StringIO() if stream is None else stream
    monkeypatch.setattr(sys, "stderr", stream)
    with Runtime(**options).progress(rows, "Scoring") as bar:
        for _ in range(rows):
            clock.now += seconds / rows
            bar.update()
    return stream.getvalue()


def test_a_log_gets_a_line_every_fifteen_seconds_and_the_last_state(clock, monkeypatch):
    lines = shown(clock, monkeypatch, 100).splitlines()
    assert [line.partition(" [")[0] for line in lines] == [
        *(f"Scoring: {share:3}%, {2 * share} of 200" for share in (15, 30, 45, 60, 75, 90)),
        "Scoring: 100%, 200 of 200",
    ]
    assert lines[0].endswith("[00:15<01:25,  2.00row/s]")


def test_what_is_over_within_fifteen_seconds_writes_no_line(clock, monkeypatch):
    assert shown(clock, monkeypatch, 14) == ""


def test_passes_within_a_pass_do_not_move_lines(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Runtime().progress(2, "Outer") as outer:
        for _ in range(2):
            with Runtime().progress(2, "Inner") as inner:
                for _ in range(2):
                    clock.now += 20
                    inner.update()
            outer.update()
    lines = sys.stderr.getvalue().splitlines()
    assert [line.split(" of")[0] for line in lines] == [
        *("Inner:  50%, 1", "Inner: 100%, 2", "Outer:  50%, 1"),
        *("Inner:  50%, 1", "Inner: 100%, 2", "Outer: 100%, 2"),
    ]


def test_a_terminal_has_a_bar_and_silence_is_silence(clock, monkeypatch):
    assert "\r" in shown(clock, monkeypatch, 100, stream=Screen())
    for stream in (Screen(), io.StringIO()):
        assert shown(clock, monkeypatch, 100, stream=stream, silent=True) == ""


def test_a_notebook_keeps_its_bar(monkeypatch):
    notebook = type("tqdm_notebook", (tqdm,), {"__module__": "tqdm.notebook"})
    monkeypatch.setattr(progress, "tqdm", notebook)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Runtime().progress(2, "Scoring") as bar:
        assert isinstance(bar, tqdm) and not isinstance(bar, Lines)
    assert progress.in_notebook(notebook) and not progress.in_notebook(tqdm)


def carry_out(series: Series, clock, number: int, seconds: float, **done) -> str:
    line = series.begin(number)
    clock.now += seconds
    series.end(number, **done)
    return line


def test_the_rest_is_estimated_by_the_work_of_finished_runs(clock):
    methods = ["full", "random", "ifd", "less"]
    works = [1000.0, 100.0, 100.0, 100.0]
    series = Series([Task(f"{m} seed {s}", m, w) for s in (0, 1) for m, w in zip(methods, works, strict=True)], clock)
    assert carry_out(series, clock, 0, 120, proportional=100.0) == "run 1/8 full seed 0"  # nothing to tell it from
    # 0.1 s a row, and 20 s of evaluation: three runs of 30 s, and four of the second seed.
    assert carry_out(series, clock, 1, 30, proportional=10.0) == "run 2/8 random seed 0, about 5 min left"
    assert series.seconds_left() == pytest.approx(2 * 30 + 120 + 3 * 30)
    carry_out(series, clock, 2, 230, proportional=10.0)  # which took 220 s to select
    assert series.seconds_left() == pytest.approx((10 + 260 / 3) + 120 + 30 + 230 + (10 + 260 / 3))
    carry_out(series, clock, 3, 30, proportional=10.0)
    assert series.begin(4) == "run 5/8 full seed 1, about 7 min left"
    for number, seconds in enumerate((120, 30, 230, 30), start=4):  # as estimated
        assert series.seconds_left() == pytest.approx(sum((120, 30, 230, 30)[number - 4 :]))
        carry_out(series, clock, number, seconds, proportional=seconds if number == 4 else 10.0)
        series.finished.pop()
    assert series.left == ""


def test_runs_found_finished_and_resumed_ones_are_no_measure(clock):
    series = Series([Task(str(number)) for number in range(6)], clock)
    series.skip(0)
    series.skip(4)
    assert carry_out(series, clock, 1, 1, resumed=True) == "run 2/6 1" and series.left == ""
    assert carry_out(series, clock, 2, 60) == "run 3/6 2"
    assert series.left == ", about 2 min left", "of 3 and 5"


def test_work_that_is_not_known_before_is_that_of_a_run_of_the_same_size(clock):
    tasks = [Task("full", work=1000.0, size="None"), *(Task(f"ifd {s}", work=None, size="2M tokens") for s in (0, 1))]
    series = Series(tasks, clock)
    carry_out(series, clock, 0, 100)
    assert series.left == ""
    carry_out(series, clock, 1, 30, work=300)
    assert series.seconds_left() == pytest.approx(30)


@pytest.mark.parametrize(
    "seconds, said", [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations_have_two_digits(seconds, said):
    assert in_words(seconds) == said

"""Ranks that are stopped, killed or failed are named, and the main process may take its time."""

import logging
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed

from hf_dataselect.engines.runtime import phase
from hf_dataselect.engines.runtime.phase import doing
from hf_dataselect.engines.runtime.progress import progress_bar
from hf_dataselect.engines.runtime.ranks import Ranks
from hf_dataselect.errors import RankError


@pytest.fixture
def group():
    """A function that makes the ranks of one store, in this process; they have left when the test ends."""
    store, made = torch.distributed.HashStore(), []
    store.set_timeout(timedelta(seconds=5))

    def make(world: int, limit: float = 0.6) -> list[Ranks]:
        made.extend(Ranks(store, rank, world, limit) for rank in range(world))
        return made

    yield make
    for one in made:
        one.leave()


def stop(ranks: Ranks) -> None:
    """No heartbeat any more, as after SIGSTOP or SIGKILL."""
    ranks._beat = lambda: None


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_others_wait_for_the_main_process_as_long_as_it_lives(group):
    main, *others = group(3)
    numbers = [ranks.begin_on_main() for ranks in (main, *others)]
    assert numbers == [1, 1, 1]
    waiting = [threading.Thread(target=ranks.wait_for_main, args=[1]) for ranks in others]
    for thread in waiting:
        thread.start()
    time.sleep(1.2)  # twice the limit
    assert all(thread.is_alive() for thread in waiting)
    main.finish_on_main(1)
    for thread in waiting:
        thread.join(10)
    assert not any(thread.is_alive() for thread in waiting)


def test_a_main_process_that_stands_still_is_named_and_then_given_up(group, caplog):
    main, other = group(2)
    with doing("Judging (3 of 60 calls)"):
        until(lambda: other._heard[0].doing == "Judging (3 of 60 calls)")
        stop(main)
    other.begin_on_main()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RankError, match="Rank 0 has not been heard of.*Judging .3 of"),
    ):
        other.wait_for_main(1)
    assert [m for m in caplog.messages if "Rank 0 has not been heard of" in m and "Judging (3 of 60 calls)" in m]


def test_a_rank_that_failed_is_named_with_its_error(group):
    main, one, two = group(3)
    with pytest.raises(ValueError) as failed, doing("Selecting"), doing("Scoring answers"):
        raise ValueError("the real error")
    two.leave(failed.value)
    said = "Rank 2 failed at: Scoring answers. ValueError: the real error"
    until(lambda: main.failed() and one.failed())
    assert main.failed() == one.failed() == str(main.cause()) == said
    one.begin_on_main()
    with pytest.raises(RankError, match="Rank 2 failed"):
        one.wait_for_main(1)
    one.leave()  # because of the other: its error is not the one to see
    assert main.failed() == said


def test_a_main_process_that_left_is_not_waited_for(group):
    main, other = group(2)
    main.leave()
    other.begin_on_main()
    with pytest.raises(RankError, match="Rank 0 has ended"):
        other.wait_for_main(1)


def test_a_rank_that_was_killed_is_told_from_one_that_does_something_else(group):
    main, other = group(2)
    with doing("Evaluating"):
        until(lambda: main._heard[1].doing == "Evaluating")
        assert "did not meet within 1 s" in str(main.cause()) and "rank 1: Evaluating" in str(main.cause())
    stop(other)
    assert "Rank 1 has not been heard of" in str(main.cause())


def test_the_phase_is_the_innermost_bar_whether_it_is_shown_or_not(monkeypatch):
    monkeypatch.setattr(phase, "_doing", [])  # tests of errors before may hold on to open bars
    assert phase.phase() == ("", 0.0)
    with doing("Selecting"):
        with progress_bar(90, "Scoring", disable=True) as bar:
            bar.update(37)
            assert phase.phase()[0] == "Scoring (37 of 90 rows)"
            with doing(lambda: str(1 / 0)):  # what it tells may be gone already
                assert phase.phase()[0] == "Scoring (37 of 90 rows)"
        left_open = progress_bar(2, "Left open", disable=True)
        assert phase.phase()[0] == "Left open (0 of 2 rows)"
        del left_open
        assert phase.phase()[0] == "Selecting" and phase.phase()[1] >= 0
    assert phase.phase() == ("", 0.0)


def test_a_rank_that_goes_on_is_told(group, caplog):
    main, other = group(2)
    beat = other._beat
    with caplog.at_level(logging.WARNING):
        stop(other)
        until(lambda: "Rank 1 has not been heard of" in caplog.text)
        other._beat = beat
        until(lambda: "Rank 1 is heard of again" in caplog.text)

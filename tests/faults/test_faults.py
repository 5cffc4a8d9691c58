"""The short form of the injected faults, and whether the table of all of them is that of the cases."""

from pkgutil import resolve_name

import pytest

from tests.faults.case import Case, Damage, Run
from tests.faults.cases import CASES
from tests.faults.conduct import conduct
from tests.faults.inject import PHASES
from tests.faults.laboratory import Laboratory
from tests.faults.table import PAGE, beginning


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    with Laboratory(tmp_path_factory.mktemp("faults") / "laboratory") as laboratory:
        yield laboratory


@pytest.mark.long
def test_faults_of_each_kind_end_as_expected(laboratory):
    # One test: the cases share what undisturbed runs leave behind.
    short = [case for case in CASES if case.short]
    assert {case.kind for case in short} == {case.kind for case in CASES} - {"disk"}  # which takes leave to mount
    verdicts = [conduct(case, laboratory, patience=10) for case in short]
    wrong = [f"{one.case.name}: {one.how}\n{one.log[-2000:]}" for one in verdicts if one.wrong]
    assert not wrong, "\n\n".join(wrong)


def test_what_is_not_as_expected_is_seen(laboratory):
    def wrong(*steps, expected="recovered", **more):
        return conduct(Case("f", "w", "kill", steps, expected, **more), laboratory).wrong

    run = Run("select", "length")
    assert wrong(run) == []
    assert wrong(run, Damage("run/selection.json", r'"indices": \[', '"indices": [59, ')) == ["another selection.json"]
    assert wrong(run, expected="recomputed") == ["nothing is computed anew"]
    assert wrong(run, expected="refused") == ["exit code 0"]
    assert wrong(run, says="never said")[0].startswith("nothing says 'never said', but: ")
    assert wrong(run, absent="Rows: ") == ["the log holds 'Rows: '"]
    assert wrong(run, expected="named", unscorable=(3,)) == ["unscorable are none, not [3]"]


@pytest.mark.parametrize("what", [what for what, _ in PHASES.values()])
def test_what_ends_a_phase_is_still_there(what):
    assert callable(resolve_name(what))


def test_the_table_lists_every_case():
    names = [beginning(case) for case in CASES]
    assert len(set(names)) == len(names) >= 60
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in names if f"\n{name}" not in text]
    assert not missing, "`make test-faults` writes the page anew"
    listed = [line for line in text.splitlines() if line.count(" | ") >= 4 and not line.startswith("| fault |")]
    assert len(listed) == len(names)

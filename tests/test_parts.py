"""Selections computed in parts by jobs of their own, which the one that follows reads."""

from dataclasses import replace

import numpy as np
import pytest

from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.parts import check_part, compute_part
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector, method_names
from tests.rows import layout
from tests.selectors.small import LAYOUTS, OPTIONS
from tests.test_contract import context, folders, in_folders  # noqa: F401 (a fixture)


ALL = [n for n in method_names() if n not in ("auto", "pass_rate")]


@pytest.mark.parametrize("name", ALL)
def test_what_parts_compute_is_all_that_is_computed(name, folders, tmp_path):  # noqa: F811
    rows = layout(LAYOUTS.get(name, "alpaca"))
    if name == "reward_gap":
        rows = rows.add_column("rejected", [f"No. {text[:9]}" for text in rows["output"]])
    options = in_folders(OPTIONS.get(name, {}), folders)

    def made(cache=True):
        ctx = context()
        ctx = replace(ctx, runtime=replace(ctx.runtime, cache_dir=tmp_path if cache else None))
        if ctx.judge:
            from tests.scripted import ScriptedJudge
            from tests.test_contract import _some_judgement

            ctx = replace(ctx, judge=ScriptedJudge(_some_judgement, ctx.runtime))
        plan = SelectionPlan(Records(rows), load_selector(name, options), 6, target=ctx.target)
        return plan, ctx

    plan, ctx = made()
    if plan.selector.splits is None:
        with pytest.raises(ValueError, match="row by row"):
            check_part(plan, Part(1, 3), tmp_path)
        pytest.skip("none")
    alone = plan.select(made(False)[1], None, {})
    for number in (3, 1, 2):
        plan, ctx = made()
        check_part(plan, Part(number, 3), tmp_path)
        print(number, compute_part(plan, ctx, Part(number, 3)))
    plan, ctx = made()
    after = plan.select(ctx, None, {})
    print(after.passes, alone.passes)
    assert {k: v for k, v in after.passes.items() if v and not k.startswith("cached")} == {}
    np.testing.assert_allclose(after.scores, alone.scores, rtol=1e-5, atol=1e-6)
    assert after.indices.tolist() == alone.indices.tolist()

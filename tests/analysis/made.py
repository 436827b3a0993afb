"""Grids in memory, of any factors: plans with records and curves of made-up numbers."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import schema
from analysis.data import GridData
from analysis.plan import Level, Plan, VariantRecord

# Factors that a method does not have.
_WITHOUT = {
    "plain": ("positions", "branch_depth", "fork_probability", "mimic."),
    "dsl": ("mimic.",),
    "dhm": (),
}


def variants(factors: Mapping[str, Sequence[Level]], method: str = "dhm") -> list[VariantRecord]:
    """All points of some factors, each compared with the plainest one that shares its levels.

    `method` is that of all points where the factors do not vary it.
    """
    found: dict[str, dict[str, Level]] = {}
    for values in itertools.product(*factors.values()):
        point = dict(zip(factors, values, strict=True))
        without = _WITHOUT[str(point.get("method", method))]
        point = {name: None if name.startswith(without) and without else level for name, level in point.items()}
        found[" ".join(str(level) for level in point.values() if level is not None)] = point
    first = str(factors.get("method", [method])[0])
    baselines = {name: point for name, point in found.items() if point.get("method", method) == first}
    if "method" not in factors:
        baselines = dict(list(baselines.items())[:1])
    made = []
    for name, point in found.items():
        shared = {other: sum(point[f] == level for f, level in levels.items()) for other, levels in baselines.items()}
        made.append(
            VariantRecord(
                name=name,
                recipe_id=name,
                role="baseline" if name in baselines else "arm",
                method=str(point.get("method", method)),
                arch=str(point.get("arch", "resnet8")),
                factors=point,
                baseline=None if name in baselines else max(shared, key=lambda other: shared[other]),
            )
        )
    return made


def grid(
    factors: Mapping[str, Sequence[Level]], *, seeds: int = 3, span: tuple[float, float] = (14, 80), **changes: Any
) -> GridData:
    """A complete grid whose curves fall from the upper end of `span` to the lower one, in percent.

    `changes` replace fields of the plan.
    """
    made = tuple(changes.pop("variants", None) or variants(factors))
    fields: dict[str, Any] = {
        "plan_id": "p1",
        "grid": "made",
        "benchmark": "digits",
        "title": "A made grid",
        "question": "",
        "reading": "",
        "overrides": (),
        "extent": (),
        "data_words": "",
        "factors": {name: tuple(levels) for name, levels in factors.items()},
        "baseline": next(variant.name for variant in made if variant.role == "baseline"),
        "seeds": tuple(range(seeds)),
        "code": "c0de",
        "data": "da7a",
        "updated": 0.0,
        "figures": ("training_curves",),
        "variants": made,
        "experiment": "digits/made",
        "experiment_id": "1",
    }
    plan = Plan(**fields | changes)
    rows, points = [], []
    for variant, seed in itertools.product(made, plan.seeds):
        run, draw = f"{variant.name} s{seed}", random.Random(f"{variant.name} {seed}")
        low, high = span
        final = low * (1 + 0.05 * draw.random())
        curve = [high * 0.98 * (low / high) ** (step / 5) for step in range(5)] + [final]
        points += [(run, schema.TEST_TOP1, epoch, value) for epoch, value in enumerate(curve)]
        rows.append(
            {
                "run_id": run,
                "status": "FINISHED",
                schema.PLAN: plan.plan_id,
                schema.VARIANT: variant.name,
                schema.SEED: seed,
                schema.RECIPE_ID: variant.recipe_id,
                schema.CODE: plan.code,
                schema.COMMIT: "c0ffee",
                schema.DIRTY: False,
                schema.FAILURE: None,
                schema.EPOCHS: len(curve),
                schema.FINAL_TOP1: final,
                schema.BEST_TOP1: final,
                schema.STEP_MS: 5.0 + seed,
            }
        )
    curves = pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"])
    return GridData(plan=plan, runs=pd.DataFrame(rows), curves=curves)

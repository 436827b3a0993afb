"""What each variant costs in training and in inference, and whether the main branch costs what the baseline costs."""

import math

import pandas as pd

from analysis import schema
from analysis.data import GridData, records
from analysis.tables.table import NONE, Column, Row, Table, number, provenance

_MEASURES = {
    "parameters_training": schema.PARAMETERS,
    "parameters_inference": schema.PARAMETERS_MAIN,
    "mflops_training": schema.FLOPS,
    "mflops_inference": schema.FLOPS_MAIN,
    "step_ms": schema.STEP_MS,
    "seconds": schema.SECONDS,
}
_YES, _NO, _UNKNOWN = "yes", "NO", "not recorded"


def build(grid: GridData) -> Table:
    """Build the table, baselines first; medians over seeds. IncompleteError where the grid is not complete."""
    plan = grid.plan
    rows = []
    for variant in plan.ordered:
        row: dict[str, object] = {"variant": variant.name, "against": plan.baseline_of(variant.name)}
        for name, metric in _MEASURES.items():
            row[name] = float(pd.Series(grid.by_seed(variant.name, metric), dtype=float).median())
        rows.append(row)
    frame = pd.DataFrame(rows)
    reference = frame.set_index("variant")
    frame["step_relative"] = [row["step_ms"] / reference.loc[row["against"], "step_ms"] for row in records(frame)]
    frame["inference_as_baseline"] = [_check(row, reference) for row in records(frame)]
    runs = grid.run_ids(list(frame["variant"]))
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-cost",
        frame=frame,
        columns=(
            Column("variant", lambda row: str(row["variant"]), "l"),
            Column("parameters, training", lambda row: _count(row["parameters_training"])),
            Column("parameters, inference", lambda row: _count(row["parameters_inference"])),
            Column("MFLOPs, training", lambda row: _flops(row["mflops_training"])),
            Column("MFLOPs, inference", lambda row: _flops(row["mflops_inference"])),
            Column("step (ms)", lambda row: number(row["step_ms"], 1)),
            Column("step, × baseline", lambda row: number(row["step_relative"], 2)),
            Column("inference as baseline", lambda row: str(row["inference_as_baseline"]), "l"),
        ),
        caption=_caption(grid, frame),
        sources={name: {"runs": runs[name]} for name in frame["variant"]},
    )


def _check(row: Row, reference: pd.DataFrame) -> str:
    """Compare a variant's main branch with its baseline's, in parameters and in operations."""
    known = []
    others = records(reference.loc[[row["against"]]])[0]
    for name in ("parameters_inference", "mflops_inference"):
        own, other = float(row[name]), float(others[name])
        if math.isnan(own) or math.isnan(other):
            return _UNKNOWN
        known.append(math.isclose(own, other, rel_tol=1e-9))
    return _YES if all(known) else _NO


def _caption(grid: GridData, frame: pd.DataFrame) -> str:
    plan = grid.plan
    arms = frame[[plan.is_arm(name) for name in frame["variant"]]]
    broken = list(arms.loc[arms["inference_as_baseline"] == _NO, "variant"])
    unknown = list(arms.loc[arms["inference_as_baseline"] == _UNKNOWN, "variant"])
    if broken:
        claim = f"does NOT hold for {', '.join(broken)}"
    else:
        claim = "holds for every arm" if not unknown else "holds where it was recorded"
    if unknown:
        claim += f" (not recorded for {', '.join(unknown)})"
    return (
        f"Cost of {plan.title[:1].lower()}{plan.title[1:]} on {plan.benchmark}. Training is with side branches, "
        "inference is the main branch alone; MFLOPs are those of a forward pass of one image. Step: median wall time "
        "of a training step, then the median over seeds; it depends on the machine and on what else ran there. "
        f"Checked: that inference costs what the baseline costs, in parameters and operations, {claim}. "
        + provenance(grid)
    )


def _count(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:,.0f}"


def _flops(value: float) -> str:
    return number(value, 0 if value >= 100 else 2)

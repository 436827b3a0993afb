"""What each variant costs in training and in inference, and whether the main branch costs what the baseline costs."""

import math

import pandas as pd

from analysis import schema
from analysis.data import GridData, records
from analysis.tables.table import NONE, Column, Row, Table, number, provenance, spread

_MEASURES = {
    "parameters_training": schema.PARAMETERS,
    "parameters_inference": schema.PARAMETERS_MAIN,
    "mflops_training": schema.FLOPS,
    "mflops_inference": schema.FLOPS_MAIN,
    "step_ms": schema.STEP_MS,
    "seconds": schema.SECONDS,
}
_YES, _NO, _UNKNOWN = "yes", "NO", "not recorded"
CLAIM = "no overhead at inference"
HOLDS, FAILS = "holds", "does not hold"


def build(grid: GridData) -> Table:
    """Build the table, baselines first, and last the claim that inference costs no more, checked; medians over seeds.

    IncompleteError where the grid is not complete.
    """
    plan = grid.plan
    rows = []
    for variant in plan.ordered:
        row: dict[str, object] = {"variant": variant.name, "against": plan.baseline_of(variant.name)}
        for name, metric in _MEASURES.items():
            row[name] = float(pd.Series(grid.by_seed(variant.name, metric), dtype=float).median())
        row["step_sd"] = float(pd.Series(grid.by_seed(variant.name, schema.STEP_MS), dtype=float).std())
        rows.append(row)
    frame = pd.DataFrame(rows)
    reference = frame.set_index("variant")
    ratios = [_ratios(grid, row["variant"], row["against"]) for row in records(frame)]
    frame["step_relative"] = [float(by_seed.median()) for by_seed in ratios]
    frame["step_relative_sd"] = [float(by_seed.std()) for by_seed in ratios]
    frame["flops_relative"] = [_relative_flops(row, reference) for row in records(frame)]
    frame["inference_as_baseline"] = [_check(row, reference) for row in records(frame)]
    claim = pd.DataFrame([{"variant": CLAIM, "inference_as_baseline": _claim(grid, frame)}])
    caption = _caption(grid, frame)
    frame = pd.concat([frame, claim], ignore_index=True)
    runs = grid.run_ids(list(plan.names))
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-cost",
        frame=frame,
        columns=(
            Column("variant", lambda row: str(row["variant"]), "l"),
            Column("parameters, training", lambda row: _count(row["parameters_training"])),
            Column("parameters, inference", lambda row: _count(row["parameters_inference"])),
            Column("MFLOPs, training", lambda row: _flops(row["mflops_training"])),
            Column("MFLOPs, inference", lambda row: _flops(row["mflops_inference"])),
            Column("MFLOPs, training, × baseline", lambda row: number(row["flops_relative"], 2)),
            Column("step (ms)", lambda row: spread(row["step_ms"], row["step_sd"], 1)),
            Column("step, × baseline", _relative),
            Column("inference as baseline", lambda row: str(row["inference_as_baseline"]), "l"),
        ),
        caption=caption,
        sources={
            **{variant.name: {"runs": runs[variant.name]} for variant in plan.ordered},
            CLAIM: {"runs": {f"{name} s{seed}": run for name, own in runs.items() for seed, run in own.items()}},
        },
    )


def _ratios(grid: GridData, variant: str, against: str) -> "pd.Series[float]":
    """Return a variant's step time over its baseline's by seed, on the seeds that both have."""
    own, other = grid.by_seed(variant, schema.STEP_MS), grid.by_seed(against, schema.STEP_MS)
    return pd.Series({seed: own[seed] / other[seed] for seed in own if seed in other}, dtype=float)


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


def _relative_flops(row: Row, reference: pd.DataFrame) -> float:
    return float(row["mflops_training"]) / float(reference["mflops_training"][row["against"]])


def _claim(grid: GridData, frame: pd.DataFrame) -> str:
    """Say whether every arm's main branch costs what its baseline's does."""
    told = set(frame.loc[[grid.plan.is_arm(name) for name in frame["variant"]], "inference_as_baseline"])
    if _NO in told:
        return FAILS
    return HOLDS if told == {_YES} else _UNKNOWN


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
        "inference is the main branch alone; MFLOPs are those of a forward pass of one image, in training the mean "
        "over steps. Step: mean wall time of a training step in the median epoch, then the median over seeds ± "
        "standard deviation; it depends on the machine and on what else ran there. "
        "Its ratio to the baseline's is taken seed by seed. "
        f"Checked: that inference costs what the baseline costs, in parameters and operations, {claim}. "
        + provenance(grid)
    )


def _relative(row: Row) -> str:
    if row["variant"] == row["against"]:
        return number(row["step_relative"], 2)
    return spread(row["step_relative"], row["step_relative_sd"], 2)


def _count(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:,.0f}"


def _flops(value: float) -> str:
    return number(value, 0 if value >= 100 else 2)

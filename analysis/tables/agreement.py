"""How far heads agree at the end of training: in predictions, and in the gradients of their losses."""

import math
from functools import partial

import pandas as pd

from analysis import agreement, schema, stats
from analysis.data import GridData
from analysis.plan import Plan
from analysis.tables.comparison import span
from analysis.tables.table import Column, Row, Table, changes, number, provenance, seeds_of_grid, spread

FIGURES = {"gradient_agreement", "mimicking_matrix"}
# What is shown of two heads: title, metric, decimals.
MEASURES = {
    "agree": ("same class (%)", schema.AGREEMENT, 1),
    "cosine": ("cosine of gradients", schema.GRADIENT_COSINE_CE, 3),
}


def applies(plan: Plan) -> bool:
    """Say whether the plan draws what diagnostics measure."""
    return bool(FIGURES & set(plan.figures))


def build(grid: GridData) -> Table:
    """Build the table, a row for two heads of a variant, baselines first, with the paired difference to the same heads
    of the baseline. ValueError where diagnostics are not recorded; IncompleteError where the grid is not complete."""
    plan, heads = grid.plan, agreement.heads(grid)
    rows = []
    for variant in plan.ordered:
        order = heads.get(variant.name, ())
        for pair in (f"{a}.{b}" for index, a in enumerate(order) for b in order[index + 1 :]):
            row: dict[str, object] = {"variant": variant.name, "heads": pair.replace(".", " and ")}
            for name, (_, metric, _) in MEASURES.items():
                values = grid.by_seed(variant.name, f"{metric}/{pair}")
                found = pd.Series(values, dtype=float)
                row |= {name: float(found.mean()), f"{name}_sd": float(found.std())}
                against = grid.by_seed(plan.baseline_of(variant.name), f"{metric}/{pair}")
                result = stats.paired(values, against if plan.is_arm(variant.name) else {})
                row |= {f"{name}_{part}": getattr(result, part) for part in ("mean", "low", "high", "p")}
            rows.append(row)
    frame = pd.DataFrame(rows)
    columns = [Column("variant", lambda row: str(row["variant"]), "l"), Column("heads", lambda row: row["heads"], "l")]
    for name, (title, _, places) in MEASURES.items():
        columns.append(Column(title, partial(_value, name=name, places=places)))
        columns.append(Column("difference", partial(_difference, name=name, places=places)))
    runs = grid.run_ids(list(plan.names))
    return Table(
        name=f"{plan.benchmark}-{plan.grid}-agreement",
        frame=frame,
        columns=tuple(columns),
        caption=_caption(grid),
        sources={f"{row['variant']}, {row['heads']}": {"runs": runs[str(row["variant"])]} for row in rows},
    )


def _value(row: Row, *, name: str, places: int) -> str:
    return spread(row[name], row[f"{name}_sd"], places)


def _difference(row: Row, *, name: str, places: int) -> str:
    told = number(row[f"{name}_mean"], places, signed=True)
    ends = row[f"{name}_low"], row[f"{name}_high"]
    return told if any(map(math.isnan, ends)) else f"{told} {span(*ends, places)}"


def _caption(grid: GridData) -> str:
    plan = grid.plan
    told = [
        f"{plan.title} on {plan.benchmark}: how far two heads agree at the last epoch that was measured, mean ± "
        f"standard deviation over {seeds_of_grid(plan)}.",
        "Same class: of the test images, those for which both predict the same one. Cosine: of the gradients of the "
        "two heads' cross-entropies over the weights that both use, in a few training batches.",
        "Differences are to the same heads of the baseline, paired by seed, with a 95 % interval (Student's, each for "
        "itself, not corrected for their number).",
    ]
    return " ".join([*told, *changes(grid), provenance(grid)])

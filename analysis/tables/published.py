"""Ours beside the published figures of a benchmark: architectures by methods, with a verdict on each.

It is made of all plans of a benchmark that keep its recipe, and stands there where nothing of it was run, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis import published, schema, stats
from analysis.data import GridData, IncompleteError
from analysis.effects import compared
from analysis.plan import Plan, VariantRecord
from analysis.published import Published
from analysis.tables.comparison import span
from analysis.tables.table import NONE, Column, Row, Table, decimals, number, spread

GRIDS = ("architectures", "imagenet", "methods")  # which vary nothing but the backbone and the method
METHODS = ("plain", "dsl", "dhm")
METRICS = {
    "cifar100": {"top1_error": (schema.BEST_TOP1, schema.FINAL_TOP1)},
    "imagenet": {
        "top1_error": (schema.BEST_TOP1, schema.FINAL_TOP1),
        "top5_error": (schema.BEST_TOP5, schema.FINAL_TOP5),
    },
}
NOT_RUN, NOT_COMPLETE, NOT_PUBLISHED, NOT_OURS = "not run", "not complete", "no published figure", "another method"
_TITLES = {"cifar100": "CIFAR-100", "imagenet": "ImageNet"}
_SHORT = {"top1_error": "top-1", "top5_error": "top-5"}
# What a command may say without leaving the benchmark's recipe.
_KEEPS = ("arch=", "replicas=", "factors.arch=", "factors.method=")
_WITHOUT_DROPOUT = ("recipe=released", "dropout=0", "dropout=0.0")


@dataclass(frozen=True, kw_only=True)
class _Ours:
    """A variant that was planned under the benchmark's recipe."""

    grid: GridData
    variant: VariantRecord

    def alone(self, *others: str) -> GridData:
        """Return the grid with this variant and `others` only: gaps elsewhere are no gaps of it."""
        kept = tuple(v for v in self.grid.plan.variants if v.name in (self.variant.name, *others))
        return replace(self.grid, plan=replace(self.grid.plan, variants=kept, baseline=kept[0].name))

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Order of preference: complete, more seeds, later."""
        return not self.alone().remarks, len(self.grid.plan.seeds_of(self.variant.name)), self.grid.plan.updated


def build(grids: Sequence[GridData], benchmark: str) -> Table:
    """Build the table of one of `METRICS`. It never refuses: what was not run, or is not complete, it says."""
    figures = published.figures(benchmark)
    ours = _planned(grids, benchmark)
    architectures = dict.fromkeys([*(figure.architecture for figure in figures), *(arch for arch, _ in ours)])
    sources = list(dict.fromkeys(figure.source for figure in figures))
    rows: list[dict[str, Any]] = []
    behind = {}
    for architecture in architectures:
        for metric, readings in METRICS[benchmark].items():
            for method in (*METHODS, *published.OTHERS):
                theirs: list[Published | None] = [
                    f for f in figures if (f.architecture, f.method, f.metric) == (architecture, method, metric)
                ]
                if method in published.OTHERS and not theirs:
                    continue
                for figure in theirs or [None]:
                    row = _row(ours.get((architecture, method)), figure, readings)
                    name = {"architecture": architecture, "method": method, "metric": _SHORT[metric]}
                    reference = "" if figure is None else f"[{sources.index(figure.source) + 1}]"
                    behind[" ".join(name.values())] = row.pop("behind")
                    rows.append(name | row | {"reference": reference})
    frame = pd.DataFrame(rows)
    places = decimals(frame["best_sd"].astype(float))
    return Table(
        name=f"{benchmark}-published",
        frame=frame,
        columns=(
            Column("architecture", lambda row: str(row["architecture"]), "l"),
            Column("method", lambda row: published.OTHERS.get(row["method"], str(row["method"])), "l"),
            *([Column("error", lambda row: str(row["metric"]), "l")] if len(METRICS[benchmark]) > 1 else []),
            Column("seeds", lambda row: str(row["seeds"]) if row["seeds"] else NONE),
            Column("last epoch (%)", lambda row: _reading(row, "final", places)),
            Column("minus plain", lambda row: number(row["gain"], places, signed=True)),
            Column("95 % interval", lambda row: span(row["gain_low"], row["gain_high"], places)),
            Column("best epoch (%)", lambda row: _reading(row, "best", places)),
            Column("published (%)", lambda row: str(row["published"] or NONE)),
            Column("ours minus published", lambda row: number(row["difference"], places, signed=True)),
            Column("its 95 % interval", lambda row: span(row["low"], row["high"], places)),
            Column("verdict", lambda row: str(row["verdict"]), "l"),
            Column("standing", lambda row: str(row["standing"] or NONE), "l"),
            Column("source", lambda row: str(row["reference"] or NONE), "l"),
        ),
        caption=_caption(grids, benchmark, sources),
        sources=behind,
    )


def _planned(grids: Sequence[GridData], benchmark: str) -> dict[tuple[str, str], _Ours]:
    found: dict[tuple[str, str], _Ours] = {}
    for grid in grids:
        if not _keeps_recipe(grid.plan, benchmark):
            continue
        for variant in grid.plan.variants:
            key = _architecture(variant.arch, grid.plan), variant.method
            candidate = _Ours(grid=grid, variant=variant)
            if key not in found or candidate.rank > found[key].rank:
                found[key] = candidate
    return found


def _of(plan: Plan, benchmark: str) -> bool:
    return plan.benchmark == benchmark and plan.grid in GRIDS


def _keeps_recipe(plan: Plan, benchmark: str) -> bool:
    return _of(plan, benchmark) and all(w.startswith(_KEEPS) or w in _WITHOUT_DROPOUT for w in plan.overrides)


def _architecture(arch: str, plan: Plan) -> str:
    """Published figures tell wide ResNets with dropout, as their documented recipe has it, from those without."""
    without = any(words in _WITHOUT_DROPOUT for words in plan.overrides)
    return f"{arch}_dropout" if arch.startswith("wrn_") and not without else arch


def _row(ours: _Ours | None, figure: Published | None, readings: tuple[str, str]) -> dict[str, Any]:
    nan = math.nan
    row: dict[str, Any] = dict.fromkeys(("best", "best_sd", "final", "final_sd", "difference", "low", "high"), nan)
    row |= {"seeds": 0, "gain": nan, "gain_low": nan, "gain_high": nan}
    row |= {"published": "", "published_value": nan, "standing": "", "source": ""}
    behind: dict[str, Any] = {"runs": {}}
    if figure is not None:
        row |= {"published": figure.text, "published_value": figure.value}
        row |= {"standing": figure.standing, "source": figure.source}
        behind["published"] = {"value": figure.text, "source": figure.source, "standing": figure.standing}
    verdict = NOT_OURS if figure is not None and figure.method in published.OTHERS else NOT_RUN
    if ours is not None:
        plan, name = ours.grid.plan, ours.variant.name
        behind |= {"plan": plan.plan_id, "experiment_id": plan.experiment_id}
        try:
            alone = ours.alone()
            best, final = (alone.by_seed(name, metric) for metric in readings)
            behind["runs"] = alone.run_ids([name])[name]
        except IncompleteError:
            verdict = NOT_COMPLETE if (ours.alone().coverage["run_id"].notna()).any() else NOT_RUN
        else:
            mean, low, high = stats.interval(list(best.values()))
            row |= {
                "seeds": len(best),
                "best": mean,
                "best_sd": _sd(best),
                "final": stats.interval(list(final.values()))[0],
            }
            row |= {"final_sd": _sd(final), **_gain(ours, readings[1])}
            verdict = NOT_PUBLISHED
            if figure is not None:
                row |= {
                    name: value - figure.value for name, value in (("difference", mean), ("low", low), ("high", high))
                }
                verdict = published.verdict(row["low"], row["high"])
    return row | {"verdict": verdict, "behind": behind}


def _gain(ours: _Ours, metric: str) -> dict[str, float]:
    """Return the paired difference to plain training by the last epoch; nothing where plain is not complete."""
    plan, name = ours.grid.plan, ours.variant.name
    if not plan.is_arm(name):
        return {}
    against = plan.baseline_of(name)
    both = ours.alone(against)
    try:
        result = compared(both, name, against, metric)
    except IncompleteError:
        return {}
    return {"gain": result.mean, "gain_low": result.low, "gain_high": result.high}


def _sd(values: dict[int, float]) -> float:
    return float(pd.Series(values, dtype=float).std())


def _reading(row: Row, name: str, places: int) -> str:
    if row["verdict"] in (NOT_RUN, NOT_COMPLETE):
        return str(row["verdict"])
    return spread(row[name], row[f"{name}_sd"], places)


def _caption(grids: Sequence[GridData], benchmark: str, sources: Sequence[str]) -> str:
    told = [
        f"{_TITLES[benchmark]}: errors in percent, mean ± standard deviation over seeds, beside published figures.",
        "Last epoch: by it arms are held against plain training, paired by seed; verdicts between arms are in each "
        "grid's comparison. Best epoch: the lowest top-1 error of any epoch, chosen on the test set as the released "
        "code does; by it alone ours are held against published figures.",
        f"Reproduced: the whole 95 % interval lies within {published.MARGIN:g} points of the published figure, which "
        f"is taken as it stands; differs: none of it does; inconclusive: neither, or fewer than {stats.MIN_PAIRS} "
        "seeds.",
        "Standing: from a README of the method's authors, or second-hand. DKS and its deep supervision are another "
        "paper's methods and are held against nothing here.",
    ]
    if benchmark == "cifar100":
        told.append("Wide ResNets are listed with dropout where they train with it, as their documented recipe does.")
    told.append("Sources: " + "; ".join(f"[{number}] {source}" for number, source in enumerate(sources, 1)) + ".")
    own = [grid for grid in grids if _of(grid.plan, benchmark)]
    if any(_keeps_recipe(grid.plan, benchmark) and grid.plan.looks for grid in own):
        told.append(
            "Where seeds were added look by look, gains have repeated intervals; those beside published figures are "
            "ordinary ones, and a little too narrow."
        )
    changed = [grid.plan.plan_id for grid in own if not _keeps_recipe(grid.plan, benchmark)]
    if changed:
        told.append(f"Left out, since the command changed the recipe: plans {', '.join(changed)}.")
    allowed = [r for g in own if _keeps_recipe(g.plan, benchmark) and g.allow_incomplete for r in g.remarks]
    if allowed:
        told.append(f"NOT COMPLETE: {' '.join(allowed)}")
    return " ".join(told)

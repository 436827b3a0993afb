"""What is written about a plan and about a cell, besides its numbers: tags, params, the note and the view of a page."""

from typing import Any

from analysis import schema
from analysis.markup import code, prose
from experiments.grid import Cell, Plan
from experiments.points import Levels
from experiments.recording.provenance import Provenance

SHOWN_GROUPS, SHOWN_LEVELS = 100, 30  # on a page, which is not made for more, and MLflow's tags hold no more


def plan_record(plan: Plan, provenance: Provenance, updated: float) -> dict[str, Any]:
    """A plan as `analysis.schema` describes it."""
    grid = plan.grid
    return {
        "plan_id": plan.plan_id,
        "grid": grid.name,
        "benchmark": plan.benchmark.name,
        "title": grid.title,
        "question": grid.question,
        "reading": grid.reading,
        "overrides": list(plan.overrides),
        "extent": list(plan.extent),
        "data_words": plan.data_words,
        "factors": {name: list(levels) for name, levels in plan.levels.items()},
        "baseline": plan.variants[0].name,
        "seeds": list(plan.seeds),
        "code": provenance.code,
        "data": plan.fingerprint,
        "updated": updated,
        "figures": list(grid.figures),
        "variants": [
            {
                "name": cell.variant.name,
                "recipe_id": cell.recipe_id,
                "role": cell.variant.role,
                "baseline": cell.variant.baseline,
                "method": cell.variant.recipe.method,
                "arch": cell.variant.recipe.arch,
                "factors": dict(cell.variant.factors),
            }
            for cell in plan.cells_of_seed(plan.seeds[0])
        ],
        **({} if not plan.looks else {"sequential": {"looks": list(plan.looks), "seeds": dict(plan.counts)}}),
        **({} if plan.search is None else {"search": dict(plan.search)}),
    }


def run_tags(plan: Plan, cell: Cell, provenance: Provenance) -> dict[str, str]:
    """The tags of a cell's run at its first attempt; `analysis.schema` says what each is."""
    recipe = cell.variant.recipe
    return {
        **cell.tags,
        schema.RECIPE_ID: cell.recipe_id,
        schema.PLAN: plan.plan_id,
        schema.GRID: plan.grid.name,
        schema.BENCHMARK: plan.benchmark.name,
        schema.VARIANT: cell.variant.name,
        schema.SEED: str(cell.seed),
        schema.METHOD: recipe.method,
        schema.ARCH: recipe.arch,
        schema.COMMIT: provenance.commit,
        schema.DIRTY: "true" if provenance.patch else "false",
        schema.CODE: provenance.code,
        schema.DATA: cell.fingerprint,
        schema.ATTEMPTS: "1",
        # What MLflow's own columns show.
        "mlflow.source.name": "experiments.run",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": provenance.commit,
    }


def run_params(cell: Cell) -> dict[str, Any]:
    """Few, so that a comparison shows what differs: the factors, the variant, the seed."""
    recipe = cell.variant.recipe
    factors = {name: "-" if level is None else level for name, level in cell.variant.factors.items()}
    return {
        schema.VARIANT: cell.variant.name,
        schema.METHOD: recipe.method,
        schema.ARCH: recipe.arch,
        schema.EPOCHS: recipe.epochs,
        **factors,
        schema.SEED: cell.seed,
    }


def plan_view(plan: Plan) -> dict[str, Any]:
    """What MLflow's page shows of a plan before anybody clicks: its runs grouped by variant, the best first."""
    cells = f"tags.{schema.PLAN} = '{plan.plan_id}'"
    columns = (schema.FINAL_TOP1, schema.BEST_TOP1, schema.SECONDS)
    return {
        "searchFilter": cells if plan.search is None else f"{cells} and tags.{schema.ROLE} != '{schema.TRIAL}'",
        "orderByKey": f"metrics.`{schema.FINAL_TOP1}`",
        "orderByAsc": True,
        "selectedColumns": [f"metrics.`{name}`" for name in columns],
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": schema.VARIANT}],
        },
        "groupsExpanded": {f"param.{schema.VARIANT}.{v.name}": False for v in plan.variants[:SHOWN_GROUPS]},
        "useGroupedValuesInCharts": True,
    }


def plan_note(plan: Plan) -> str:
    """What MLflow's page of a grid says above its runs, in Markdown: the question, the factors, how to read it."""
    grid = plan.grid
    levels = "\n".join(f"- {code(name)}: {_levels(values)}" for name, values in plan.levels.items())
    return (
        f"### {prose(grid.title)}\n\n{prose(grid.question)}\n\n{prose(grid.reading)}\n\n**Factors**\n\n{levels}\n\n"
        f"**Baseline**: {code(plan.variants[0].name)}. Arms at one seed share the main branch's first weights and the "
        "order of the data, so compare them seed by seed.\n\n"
        "**How to read it**: group the runs by `variant`. `final/top1_error` (percent, last epoch) decides between "
        "arms; `best/top1_error` is the best test epoch, and stands beside published figures only.\n\n"
        f"Made by `python -m experiments.run grid={grid.name} benchmark={plan.benchmark.name}`; tables and figures by "
        "`python -m analysis.build`."
    )


def _levels(values: Levels) -> str:
    shown = code(", ".join(map(str, values[:SHOWN_LEVELS])))
    return shown if len(values) <= SHOWN_LEVELS else f"{shown} and {len(values) - SHOWN_LEVELS} more"

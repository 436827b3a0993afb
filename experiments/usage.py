"""What the command line says of itself: help, which loads nothing else, and what grids and benchmarks there are."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

EXAMPLES = """\
[bold]python -m experiments.run grid=branch_positions[/]                what is missing of a grid, on digits
[bold]python -m experiments.run grid=methods plan=true[/]               its cells and their cost; runs nothing
[bold]python -m experiments.run grid=methods benchmark=cifar100 data.root=/data seeds=3 pool.gpus=all[/]
[bold]python -m experiments.run grid=depths epochs=5 factors.arch=\\[resnet8][/]   other settings, other levels
[bold]python -m experiments.run grid=my_grid grid_dir=my_grids[/]       your own, my_grids/my_grid.yaml"""


def help_page(console: Console) -> None:
    """Settings and examples, on one screen."""
    console.print("Run what is missing of a grid, and build its tables and figures.\n")
    console.print(EXAMPLES, soft_wrap=True)
    _section(
        console,
        "Settings",
        {
            "grid, benchmark": "what is studied, and on what; without a grid: lists both",
            "seeds": "how many, a list, or auto: more where a comparison is open (study.max_seeds, study.look_every)",
            "recipe": "documented: as the authors' TRAINING.md has it; released: as the released code runs: dropout is "
            "parsed and not applied",
            "arch, epochs, optim.lr, ...": "any field of the recipe, by its name in dhm/recipe.py",
            "factors.NAME": "levels of a factor of the grid: arch, method, positions, branch_depth, fork_probability, "
            "term, or a recipe field",
            "data.root": "folder of the images",
            "diagnostics.every": "epochs between measurements of how far heads agree; 0 is none",
            "diagnostics.ensembles": "true: errors of the heads taken together, by mean logits and by mean softmax",
            "study.trials": "how many trials a search has, in all",
            "plan=true": "shows the cells, with cost; runs nothing",
            "retry": "failed: run failed cells again; stale: those that other code made",
            "pool.gpus": "auto, all, none, how many, or a list",
            "pool.gpus_per_run": "replicas of every run, which share its batches, a GPU each; part of the recipe",
            "pool.*": "slots_per_gpu, cpu_slots (auto: measured; 0: as many as cores), threads, workers (decode "
            "images), channels_last, compile, recompute (less memory, more time), deterministic",
            "store, results": "folders of the record and of tables and figures",
            "tracking, queue": "URIs of an MLflow server (results) and a database (Optuna), see experiments.stores",
            "study.retries, .patience": "of lost runs; seconds to wait for a store",
            "allow_incomplete=true": "tables of a grid that is not complete, whose captions say so",
            "grid_dir": "folder with grids of your own, YAML",
        },
    )
    console.print("\nExit codes: 0 done, 1 not all cells done, 2 a mistake in the command, 130 interrupted.")


def catalogue(console: Console, grid_dir: str | None) -> None:
    """Grids, those of a folder of the user's own too, and benchmarks, a line each.

    Raises:
        ValueError: a file of the folder is no grid.
    """
    with console.status("loading the grids"):
        import experiments.grids  # noqa: F401, PLC0415  (grids and benchmarks load torch, which help need not wait for)
        from experiments.benchmarks import BENCHMARKS  # noqa: PLC0415  (as above)
        from experiments.grid import GRIDS  # noqa: PLC0415  (as above)
        from experiments.user_grids import register_folder  # noqa: PLC0415  (as above)
    if grid_dir is not None:
        register_folder(Path(grid_dir))
    _section(console, "Grids", {name: GRIDS.get(name).question for name in GRIDS})
    _section(console, "Benchmarks", {name: BENCHMARKS.get(name).summary for name in BENCHMARKS})
    console.print("\nRun one:  [bold]python -m experiments.run grid=branch_positions[/]      More: --help")


def _section(console: Console, title: str, lines: dict[str, str]) -> None:
    console.print(f"\n[bold]{title}[/]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, text in lines.items():
        table.add_row(escape(name), escape(text))
    console.print(table)

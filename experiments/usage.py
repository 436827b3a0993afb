"""What the command line says of itself: help, which loads nothing else, and what grids and benchmarks there are."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import pools

NAMES = 22  # characters of the longest name of a setting
COMMAND = "python -m experiments.run"
EXAMPLES = {
    "grid=branch_positions": "what is missing of a grid, on digits",
    "grid=methods plan=true": "its cells and their cost",
    "grid=methods benchmark=cifar100 data.root=/data": "on images",
    "grid=depths epochs=5 'factors.arch=[resnet8]'": "other levels",
    "grid=my_grid grid_dir=my_grids": "your own, my_grids/my_grid.yaml",
}
SETTINGS = {
    "What is studied": {
        "grid, benchmark": "what, and on what; without a grid: lists both",
        "grid_dir": "folder with grids of your own, YAML",
        "data.root": "folder of the images",
        "seeds": "how many, a list, or auto: more where it is open",
        "recipe": "documented, or released (which leaves dropout out)",
        "arch, epochs, optim.lr": "any field of the recipe, see dhm/recipe.py",
        "factors.NAME": "levels of arch, method, positions, branch_depth, fork_probability, term, or of a recipe field",
        "baseline.NAME": "level that marks what the rest is held against",
        "study.trials": "of a search; with seeds=auto .max_seeds, .look_every",
    },
    "How it runs": {
        "plan=true [--json]": "shows the cells, with cost; runs nothing",
        "retry": "failed, or stale (of other code): runs them again; running: takes over what another host left open",
        "pool": f"{', '.join(pools.names())}, see docs/scaling.md",
        "pool.gpus": "auto, all, none, how many, or a list",
        "pool.gpus_per_run": "replicas of a run, which share its batches",
        "pool.slots_per_gpu": "how many at once; on a CPU pool.cpu_slots (or auto)",
        "pool.*": "threads, workers, deterministic, channels_last, compile, recompute",
        "study.*": "retries of lost runs; patience with a store (seconds)",
    },
    "What is kept": {
        "store, results": "folders of the record, and of tables and figures",
        "tracking, queue": "servers in its place, see experiments.stores",
        "diagnostics.every": "epochs between looks at how far heads agree",
        "diagnostics.ensembles": "true: errors of the heads taken together",
        "allow_incomplete=true": "tables of what is there, whose captions say so",
    },
}


def help_page(console: Console) -> None:
    """Settings and examples, on one screen."""
    console.print("Run what is missing of a grid, and build its tables and figures.")
    console.print(f"\n[bold]{COMMAND}[/] ...")
    _lines(console, EXAMPLES)
    for title, settings in SETTINGS.items():
        console.print(f"[bold]{title}[/]")
        _lines(console, settings)
    console.print("[bold]Exit codes[/]  0 done, 1 not all cells done, 2 a mistake, 130 interrupted")


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
    for title, registry in (
        ("Grids", {name: GRIDS.get(name).question for name in GRIDS}),
        ("Benchmarks", {name: BENCHMARKS.get(name).summary for name in BENCHMARKS}),
    ):
        console.print(f"[bold]{title}[/]")
        _lines(console, registry, whole=not console.is_terminal)
    console.print(f"Run one: [bold]{COMMAND} grid=branch_positions[/]    More: --help")


def _lines(console: Console, lines: dict[str, str], *, whole: bool = True) -> None:
    """Names and what they are.

    Args:
        whole: else a line each, as far as the terminal is wide.
    """
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    names = max(NAMES, *map(len, lines)) + 2
    table.add_column(style="cyan", no_wrap=True, min_width=names)
    if whole:
        table.add_column(overflow="fold")
    else:
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=console.width - names - 4)
    for name, text in lines.items():
        table.add_row(f"  {escape(name)}", escape(text))
    console.print(table)

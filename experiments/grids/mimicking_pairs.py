"""Which heads should mimic which?

    python -m experiments.run grid=mimicking_pairs

6 variants; on `digits` about a minute for 5 seeds on 2 cores. The released code mimics between all pairs.
The variant that it holds commented out is `mimic.random_stop=true`.
"""

from experiments.grid import GRIDS, Grid

mimicking_pairs = GRIDS.register(
    "mimicking_pairs",
    Grid(
        name="mimicking_pairs",
        title="Mimicking pairs",
        question="Which way should knowledge go between the heads?",
        reading="The baseline is DSL: the same branches without mimicking. Names say the way: `sides_to_main` draws "
        "the main branch towards the side branches. The later a branch forks the deeper it is; the main branch is "
        "the deepest.",
        factors={
            "method": ["dsl", "dhm"],
            "mimic.pairs": ["all", "sides_to_main", "main_to_sides", "deep_to_shallow", "shallow_to_deep"],
        },
        baseline={"method": "dsl"},
        figures=("network", "levels", "effects", "training_curves"),
    ),
)

"""Does the gain depend on the depth of the branches, and of the backbone?

    python -m experiments.run grid=depths

15 variants; on `digits` about four minutes for 5 seeds on 2 cores. Each arm is compared with plain training of the
same backbone.
"""

from experiments.grid import GRIDS, Grid

depths = GRIDS.register(
    "depths",
    Grid(
        name="depths",
        title="Depth of the branches and of the backbone",
        question="Does the gain depend on how deep the side branches are, and on how deep the backbone is?",
        reading="`branches x2` doubles the blocks in every stage of every branch. Each arm is compared with plain "
        "training of the same backbone.",
        factors={
            "arch": lambda benchmark: benchmark.depths,
            "method": ["plain", "dsl", "dhm"],
            "branch_depth": [1, 2],
        },
        baseline={"method": "plain"},
        figures=("network", "levels", "effects", "training_curves"),
    ),
)

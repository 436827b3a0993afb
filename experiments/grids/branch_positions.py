"""After which stages should side branches fork?

    python -m experiments.run grid=branch_positions

7 variants; on `digits` about a minute for 5 seeds on 2 cores. The paper ablates positions too; its table is not
sourced.
"""

from experiments.grid import GRIDS, Grid

branch_positions = GRIDS.register(
    "branch_positions",
    Grid(
        name="branch_positions",
        title="Branch positions",
        question="After which stages should side branches fork, with deep supervision (DSL) and with mimicking (DHM)?",
        reading="`at 1+2` has a branch after stage 1 and one after stage 2, as the released networks have.",
        factors={"method": ["plain", "dsl", "dhm"], "positions": ["1", "2", "1+2"]},
        baseline={"method": "plain"},
        figures=("network", "positions", "effects", "training_curves"),
    ),
)

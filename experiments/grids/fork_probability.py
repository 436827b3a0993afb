"""Does it matter whether a branch always forks?

    python -m experiments.run grid=fork_probability

9 variants; on `digits` about a minute and a half for 5 seeds on 2 cores. The paper's "dynamic" forking: a node forks or
not at each step. Its main setting has probabilities 0 and 1 only; its author suggests that 0.5 may be tried. The
paper's own table, if it has one, is not sourced.

    python -m experiments.run grid=fork_probability baseline.fork_probability=1.0   # the same cells, against p 1
"""

from experiments.grid import GRIDS, Grid

fork_probability = GRIDS.register(
    "fork_probability",
    Grid(
        name="fork_probability",
        title="Fork probability",
        question="Does a branch that forks only at some steps help as much as one that always forks?",
        reading="`p 0` is plain training, `p 1` the main setting. In between every branch forks at each step with that "
        "probability, by a draw of its own. With `baseline.fork_probability=1.0` it trains nothing anew, and compares "
        "with the main setting.",
        factors={"method": ["dsl", "dhm"], "fork_probability": [0.0, 0.25, 0.5, 0.75, 1.0]},
        baseline={"fork_probability": 0.0},
        figures=("levels", "effects", "training_curves"),
    ),
)

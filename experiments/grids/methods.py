"""Does DHM beat deep supervision, and deep supervision plain training?

    python -m experiments.run grid=methods
    python -m experiments.run grid=methods baseline.method=dsl      # what mimicking adds to DSL; trains nothing anew

3 variants; on `digits` about a minute for 5 seeds on 2 cores. On CIFAR-100 it is the paper's main comparison
(whose own table is not sourced; published figures that are stand in the authors' READMEs).
"""

from experiments.grid import GRIDS, Grid

methods = GRIDS.register(
    "methods",
    Grid(
        name="methods",
        title="Methods: plain training, deep supervision, DHM",
        question="Does DHM beat deep supervision (DSL), and DSL plain training, on one backbone?",
        reading="DSL adds side branches with their own cross-entropy; DHM lets all heads mimic each other as well. "
        "Both are compared with plain training here, and with DSL by `baseline.method=dsl`.",
        factors={"method": ["plain", "dsl", "dhm"]},
        baseline={"method": "plain"},
        figures=("network", "methods", "training_curves"),
    ),
)

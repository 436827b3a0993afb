"""Does a further term of the objective help, and does it still help beside mimicking?

    python -m experiments.run grid=loss_terms
    python -m experiments.run grid=loss_terms "factors.term=[none,'label_smoothing:0.1','label_smoothing:0.2']"

4 variants; on `digits` about a minute for 5 seeds on 2 cores. Any term of `dhm/losses` can be asked about, also
one that has nothing to do with DHM: a file there is all that it takes. The paper has no such ablation that is sourced.
"""

from experiments.grid import GRIDS, Grid

loss_terms = GRIDS.register(
    "loss_terms",
    Grid(
        name="loss_terms",
        title="Further loss terms",
        question="Does a further term of the objective help plain training, and does it still help DHM?",
        reading="`with label_smoothing 0.1` adds this term to the objective of every head. Each arm is compared with "
        "the same method without it.",
        factors={"method": ["plain", "dhm"], "term": ["none", "label_smoothing:0.1"]},
        baseline={"term": "none"},
        figures=("levels", "effects", "training_curves"),
    ),
)

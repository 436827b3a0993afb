"""Does mimicking make the objectives of heads consistent?

    python -m experiments.run grid=gradient_agreement

2 variants, measured at every epoch (diagnostics.every=1); on `digits` about a minute for 5 seeds on 2 cores. Cells that
another grid trained without diagnostics are trained again, with them.
"""

from experiments.grid import GRIDS, Grid

gradient_agreement = GRIDS.register(
    "gradient_agreement",
    Grid(
        name="gradient_agreement",
        title="Agreement of heads",
        question="Does mimicking make the predictions of heads and the gradients of their losses agree?",
        reading="`diagnostics/kl` and `diagnostics/agreement` compare predictions on the test images, "
        "`diagnostics/gradient_cosine_ce` and `diagnostics/gradient_cosine` the gradients of two heads' "
        "cross-entropies and of their whole losses. Compare methods by the former: two heads that mimic each other "
        "tend to pull the weights that they share opposite ways by that very term.",
        factors={"method": ["dsl", "dhm"]},
        baseline={"method": "dsl"},
        figures=("gradient_agreement", "mimicking_matrix", "training_curves"),
        diagnostics_every=1,
    ),
)

# %% [markdown]
# # Branch positions
#
# After which stages should side branches fork? `make run` trains this grid, in about a minute on two cores.

# %%
from analysis.results import load

positions = load("branch_positions")
positions

# %%
positions.figure("network")

# %%
positions.answer()

# %% [markdown]
# Each arm's difference to plain training, with its interval; the dots are the seeds. An open marker is a difference
# that is not shown: an interval that holds zero is no evidence of equality either.

# %%
positions.figure("positions")

# %%
positions.table("comparison")

# %%
positions.figure("training_curves")

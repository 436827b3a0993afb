# %% [markdown]
# # Your own grid
#
# A question of your own is a YAML file. This one is [grids/learning_rate.yaml](grids/learning_rate.yaml):

# %%
from pathlib import Path

print(Path("grids/learning_rate.yaml").read_text())

# %% [markdown]
# From the repository's folder, see its cells first, then train them (30 cells, under a minute on two cores):
#
#     python -m experiments.run grid=learning_rate grid_dir=notebooks/grids plan=true
#     python -m experiments.run grid=learning_rate grid_dir=notebooks/grids
#
# The same command again trains nothing; after a crash it goes on. `seeds=10` adds seeds to it.

# %%
from analysis.results import load

command = "python -m experiments.run grid=learning_rate grid_dir=notebooks/grids"
rates = load("learning_rate", command=command)
rates

# %%
rates.answer()

# %%
rates.figure("levels")

# %%
rates.figure("effects")

# %% [markdown]
# The numbers themselves are a pandas frame, for whatever you want to make of them.

# %%
rates.effects()[["variant", "against", "seeds", "mean", "difference", "low", "high", "verdict"]].round(2)

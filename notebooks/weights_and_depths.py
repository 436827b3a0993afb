# %% [markdown]
# # Mimicking weights and depths
#
# How does the error depend on the mimicking weight alpha and the temperature T, and on the depth of the branches and of
# the backbone?
#
#     python -m experiments.run grid=mimicking_weights
#     python -m experiments.run grid=depths

# %%
from analysis.results import load

weights = load("mimicking_weights")
weights

# %%
weights.figure("weights")

# %%
weights.figure("effects")

# %%
weights.table("comparison")

# %% [markdown]
# ## Depths
#
# On `digits`, deeper networks with deeper branches do not always train: an error near 90 % is that of guessing among
# ten classes, and the curves show who never left it. That tells about the recipe of this little benchmark, whose
# learning rate was chosen for its small backbone, and not about DHM on CIFAR.

# %%
depths = load("depths")
depths

# %%
depths.figure("network")

# %%
depths.figure("levels")

# %%
depths.figure("training_curves")

# %%
depths.table("comparison")

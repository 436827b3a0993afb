# %% [markdown]
# # Inside DHM
#
# Mimicking is to make the heads agree. Do they? This grid measures, at every epoch, how far the heads' predictions
# lie apart (KL, before and after training) and whether their losses pull the weights that they share the same way
# (cosine of the gradients), for DSL beside DHM.
#
#     python -m experiments.run grid=gradient_agreement

# %%
from analysis.results import load

agreement = load("gradient_agreement")
agreement

# %% [markdown]
# ## Who agrees with whom
#
# A row is a student, a column its teacher. Above the first weights, below the last ones.

# %%
agreement.figure("mimicking_matrix")

# %% [markdown]
# ## Whether gradients agree
#
# Compare DSL with DHM by the cross-entropies alone. Of the whole losses (dotted), two heads that mimic each other
# tend to pull the shared weights opposite ways by that very term.

# %%
agreement.figure("gradient_agreement")

# %%
agreement.figure("training_curves")

# %%
agreement.table("comparison")

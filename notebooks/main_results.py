# %% [markdown]
# # Main results
#
# Does DHM beat deep supervision (DSL), and DSL plain training? Every arm is trained at the same seeds as its baseline,
# from the same first weights and on the same batches, and is compared with it seed by seed.
#
# What is below was trained on `digits`: 8 by 8 images, 200 of them for training, a backbone of 75,000 parameters. It
# shows how a study goes and what it reports; **it says nothing about the paper's claim**, which is about CIFAR-100
# and ImageNet.

# %%
from analysis.results import load

methods = load("methods")
methods

# %% [markdown]
# The networks that are compared: plain training is the grey row alone; DSL adds the side branches, each with its own
# cross-entropy; DHM lets the heads mimic each other as well, as the arrows say. For inference the grey row is left.

# %%
methods.figure("network")

# %%
methods.answer()

# %%
methods.table("comparison")

# %%
methods.figure("methods")

# %% [markdown]
# What it costs: the side branches cost time in training, and nothing in inference.

# %%
methods.table("cost")

# %% [markdown]
# On CIFAR-100 with ResNet-110, on all GPUs:
#
#     python -m experiments.run grid=methods benchmark=cifar100 data.root=/data arch=resnet110 pool.gpus=all
#
# Then `load("methods", "cifar100")` in place of the line above shows it here.

"""Names that a record in the tracking store has. Whoever writes a record and whoever reads it use these.

This module imports nothing, so that a training process can use it without loading pandas.

A record is one MLflow run: one cell of one plan. Its experiment is `BENCHMARK/GRID`. Metrics use `/` for
sections; a metric of a side branch ends in the name of its head (`test/top1_error/side1`), the main branch's
has no such ending. All errors are in percent.
"""

# --- Tags of a run -----------------------------------------------------------------------------------------
CELL_ID = "cell_id"  # recipe_id and seed: "3f9a2c41d0b7-s3"
RECIPE_ID = "recipe_id"  # hash of the recipe's non-default fields and the data's fingerprint
PLAN = "plan"  # id of the plan (a grid over one base recipe) that this run belongs to
GRID = "grid"
BENCHMARK = "benchmark"
VARIANT = "variant"  # readable name of a point of the grid: "dhm at 1+2"
ROLE = "role"  # BASELINE or ARM; TRIAL for a run of a search, which is no cell
SEED = "seed"
METHOD = "method"  # plain, dsl or dhm
ARCH = "arch"
COMMIT = "commit"
DIRTY = "dirty"  # "true" where the tree had uncommitted changes to code
CODE = "code"  # hash of the training code as it ran
DATA = "data"  # fingerprint of the data's content
ATTEMPTS = "attempts"  # how often the cell was started
SOURCE_RUN = "source_run"  # run id of the original, where this record copies a cell of another plan
FAILURE = "failure"  # class of the failure: one of FAILURES
FAILURE_MESSAGE = "failure_message"  # last line of the error
INTERRUPTIONS = "interruptions"  # what ended earlier attempts, and how often: "killed by SIGKILL (2), stopped"
OWNER = "mlflow.dhm.owner"  # HOST:FILE, a lock that the scheduler of an open record holds while it lives

# A trial of a search has no CELL_ID, so that nobody takes it for a cell, but:
TRIAL_ID = "trial_id"  # recipe, seed, and that it is a trial: "3f9a2c41d0b7-s1000-trial"
TRIAL_NUMBER = "trial"  # from 0, in the order in which they were proposed
SEARCH = "search"  # id of the search: of what is searched, where, on which data
PRUNED = "pruned"  # epochs after which it was given up, if it was; its run is KILLED then

BASELINE, ARM, TRIAL = "baseline", "arm", "trial"
OUT_OF_MEMORY, NOT_FINITE, ERROR = "out_of_memory", "not_finite", "error"
FAILURES = (OUT_OF_MEMORY, NOT_FINITE, ERROR)

# --- Params of a run: the grid's factors by their own names, and VARIANT, METHOD, ARCH, SEED, EPOCHS -----
EPOCHS = "epochs"

# --- Metrics with one value an epoch (step = 0-based epoch) ------------------------------------------------
TEST_TOP1, TEST_TOP5, TEST_LOSS = "test/top1_error", "test/top5_error", "test/loss"
VAL_TOP1 = "val/top1_error"  # where the recipe holds out validation images
TRAIN_TOP1, TRAIN_LOSS = "train/top1_error", "train/loss"
LR = "train/lr"
LOSS_CE = "loss/ce"  # loss/ce/main, loss/ce/side1: cross-entropy of each head
LOSS_MIMIC = "loss/mimic"  # loss/mimic/main.side1: T^2 KL drawing the first to the second, before alpha

# Where ensembles were asked for they stand where a head does: test/top1_error/ensemble, final/top5_error/ensemble, ...
ENSEMBLE = "ensemble"  # of the mean of the heads' logits
ENSEMBLE_SOFTMAX = "ensemble_softmax"  # of the mean of their softmax

DIAGNOSTICS = "diagnostics/"  # begins the names of all of these
# Where diagnostics were asked for, at the epochs that were measured; heads at the end, as in "kl/main.side1":
KL = "diagnostics/kl"  # KL of the second head's predictions to the first's, test images, T = 1, in nats
INITIAL_KL = "diagnostics/initial_kl"  # the same at the first weights; once, with the first epoch measured
AGREEMENT = "diagnostics/agreement"  # test images on which two heads predict the same class, percent
# cosine of the gradients of two heads' losses over the weights that both use, mean over a few training batches:
GRADIENT_COSINE = "diagnostics/gradient_cosine"  # whole losses: cross-entropy and what the head mimics
GRADIENT_COSINE_CE = "diagnostics/gradient_cosine_ce"  # cross-entropies alone
GRADIENT_COSINE_VARIANCE = "diagnostics/gradient_cosine_variance"  # over those batches
GRADIENT_COSINE_CE_VARIANCE = "diagnostics/gradient_cosine_ce_variance"

# --- Metrics with one value a run --------------------------------------------------------------------------
FINAL_TOP1, FINAL_TOP5 = "final/top1_error", "final/top5_error"  # last epoch; arms are compared by it
BEST_TOP1, BEST_TOP5 = "best/top1_error", "best/top5_error"  # at the main branch's best test epoch
BEST_EPOCH = "best/epoch"
PARAMETERS = "cost/parameters"  # in training, with branches
PARAMETERS_MAIN = "cost/parameters_main"  # in inference, main branch only
FLOPS = "cost/mflops_training"  # forward pass with branches, one image, mean over steps, in millions
FLOPS_MAIN = "cost/mflops_inference"  # forward pass of the main branch, one image, in millions
STEP_MS = "cost/step_ms"  # mean wall time of a training step, in the median epoch
SECONDS = "cost/seconds"  # wall time of training and evaluation
GPU_HOURS = "cost/gpu_hours"  # the same in hours, of a run on a GPU, whole also where runs share it
ENERGY = "cost/energy_wh"  # of the run's GPU or processors in watt-hours, shares of other runs included; if counted
EPOCH_ENERGY = "cost/epoch_energy_wh"  # the same, an epoch (so it has a value an epoch)

# --- Artifacts of a run ------------------------------------------------------------------------------------
RECIPE_FILE = "recipe.json"  # the recipe in full, the seed, the data's fingerprint
TOPOLOGY_FILE = "topology.json"  # stages, side branches and heads, as they were built
CLASS_ERRORS_FILE = "class_errors.json"  # error of every class in percent, for every head
ENVIRONMENT_FILE = "environment.json"  # command, versions, hardware, runtime, what bends numbers; of every attempt
PATCH_FILE = "uncommitted.diff"  # where DIRTY: changed and new source files, as git apply takes them
WEIGHTS_FILE = "main.pt"  # state dict of the main branch
ERROR_FILE = "error.txt"  # the whole trace of a failure

# --- The plan of a grid, kept with its experiment ----------------------------------------------------------
# JSON, compressed with zlib and written in base64 over as many experiment tags as it takes:
# PLAN_TAG.PLAN_ID.0, PLAN_TAG.PLAN_ID.1, ... (an experiment tag holds at most 5,000 characters). Its keys:
#   plan_id, grid, benchmark, title, question, reading (Markdown: how to read the comparison),
#   overrides (list of what the command line changed in the base recipe and the levels; empty for the plain grid),
#   extent (list of what it said besides: how far to go, where grid and images lie),
#   data_words (how many classes and images),
#   factors ({name: [levels]}), baseline (name of a variant), seeds (list of ints),
#   code, data (as the tags above, when the plan was last run), updated (seconds since the epoch),
#   figures (names of modules in analysis/figures),
#   variants: list of {name, recipe_id, role, method, arch,
#                      factors ({name: level, or null where it does not apply}),
#                      baseline (name of the variant that it is compared with; null for a baseline)}
# for seeds that were added where comparisons were open (`analysis.sequential`):
#   sequential: {looks (numbers of seeds at which comparisons are looked at),
#                seeds ({name of a variant: how many of `seeds` it has, the first ones})}
# and, for a search alone:
#   search: {search_id, space ({path: [low, high, whether in logarithms]}), seed (of its trials),
#            held_out (share of the training images that judge), pruner, trials (how many were asked for),
#            selected (number of the trial whose setting is an arm of the plan; null before the end),
#            importance ({path: share}; empty where too few trials tell)}
PLAN_TAG = "mlflow.dhm.plan"  # MLflow keeps tags that begin so out of its lists
PLAN_TAG_SIZE = 4900
NOTE_TAG = "mlflow.note.content"
VIEW_TAG = "mlflow.sharedViewState."  # and a plan's id: how MLflow's page shows its runs; named in links

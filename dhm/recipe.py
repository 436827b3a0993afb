"""All that determines a result, and nothing else.

A recipe says what is trained and how: it holds no path, no device, no number of workers. Two runs of one recipe at
one seed are the same run. Every dataclass here is frozen and keyword-only; a variant edits a base with
`dataclasses.replace`. Values are checked and converted by the fields' own types, so that a recipe from Python, from
JSON and from a command line is the same recipe, and a mistake is one ValueError that names the field.
"""

import dataclasses
import math
from collections.abc import Sequence

from dhm.fields import Spec
from dhm.registry import unknown

SCHEDULES = ("constant", "multistep", "step", "cosine", "linear")
WARMUPS = ("linear", "constant")
PRECISIONS = ("float32", "bf16")
AUGMENTATIONS = ("shift", "resized_crop")
DECODERS = ("pillow", "dali")
PAIRS = ("all", "sides_to_main", "main_to_sides", "deep_to_shallow", "shallow_to_deep", "listed")
FORK_SCALINGS = ("none", "inverse")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BranchSpec(Spec):
    """A side branch: where it forks, how deep and how wide it is.

    Args:
        after: the node, as the number of the stage whose output it is (1 is the first stage).
        blocks: blocks of each of the branch's own stages; one entry for every stage that follows the node.
        width: factor on the width of the backbone's stages (for DenseNet, on the growth rate).
        block: a node inside stage `after`: the output of this block of it (1 is its first); 0 is the stage's output.
            The rest of the stage then counts as one that follows.
        fork_probability: the branch forks at each step with this probability; 0 is no branch. The paper calls forking
            by such draws dynamic; its main setting has 0 and 1 only.
    """

    after: int
    blocks: tuple[int, ...]
    width: float = 1.0
    block: int = 0
    fork_probability: float = 1.0

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        self.require(self.after >= 1, f"branch after={self.after}: nodes are numbered from 1")
        self.require(
            len(self.blocks) > 0 and min(self.blocks) >= 1,
            f"branch blocks={list(self.blocks)}: every stage of a branch has at least one block",
        )
        self.require(self.width > 0, f"branch width={self.width}: must be above 0")
        self.require(self.block >= 0, f"branch block={self.block}: blocks are numbered from 1; 0 is the stage's output")
        self.require(
            0 <= self.fork_probability <= 1,
            f"branch fork_probability={self.fork_probability}: a probability lies in [0, 1]",
        )

    @property
    def node(self) -> str:
        """Where it forks, in names: `1`, or `2_3` after the third block of the second stage."""
        return f"{self.after}_{self.block}" if self.block else str(self.after)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairSpec(Spec):
    """One mimicking term: the head that learns, the head that it learns from, and the term's weight."""

    student: str
    teacher: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        self.require(self.student != self.teacher, f"mimic.listed: {self.student} cannot mimic itself")
        self.require(self.weight >= 0, f"mimic.listed: weight={self.weight} must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MimicSpec(Spec):
    """The mimicking loss between every ordered pair of heads.

    Args:
        alpha: weight of the mimicking terms against the cross-entropies. 0 is deep supervision, bit for bit.
        temperature: T; terms are scaled by its square.
        smoothing: added to every probability before the log, as the released code does; 0 is the exact KL.
        pairs: which heads mimic which, by the way that knowledge goes: `all`, `sides_to_main`, `main_to_sides`,
            `deep_to_shallow`, `shallow_to_deep` (a side branch is the deeper the later its node is, and of those at one
            node the later in `branches`, however many blocks it has; main is the deepest), or `listed`.
        listed: the terms, where `pairs` is `listed`.
        alpha_warmup: epochs over which alpha rises from 0, by iteration.
        stop_gradient: whether a teacher gets no gradient; false lets every term draw both of its heads.
        random_stop: at each step a random subset of the terms is left out, as in a variant that the released code
            holds commented out: of n terms, int(u * n) draws with replacement, u uniform in [0, 1).
    """

    alpha: float = 1.0
    temperature: float = 1.0
    smoothing: float = 1e-8
    pairs: str = "all"
    listed: tuple[PairSpec, ...] = ()
    alpha_warmup: float = 0.0
    stop_gradient: bool = True
    random_stop: bool = False

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        self.require(self.alpha >= 0, f"mimic.alpha={self.alpha}: must not be negative")
        self.require(self.temperature > 0, f"mimic.temperature={self.temperature}: must be above 0")
        self.require(0 <= self.smoothing < 1, f"mimic.smoothing={self.smoothing}: must lie in [0, 1)")
        self.require(self.alpha_warmup >= 0, f"mimic.alpha_warmup={self.alpha_warmup}: must not be negative")
        _one_of("mimic.pairs", self.pairs, PAIRS)
        self.require(
            (self.pairs == "listed") == (len(self.listed) > 0),
            "mimic.pairs=listed and mimic.listed=[{student: main, teacher: side1}, ...] need each other",
        )
        terms = [(pair.student, pair.teacher) for pair in self.listed]
        self.require(len(set(terms)) == len(terms), "mimic.listed: a pair stands twice")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TermSpec(Spec):
    """One more term of the objective, by its name in `dhm.losses.TERMS`, with its weight."""

    name: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimSpec(Spec):
    """SGD and its learning-rate schedule.

    Args:
        lr: initial learning rate.
        schedule: `multistep` multiplies by `gamma` at each of `milestones` (0-based epochs); `step` every `step_size`
            epochs; `cosine` and `linear` fall to 0, by iteration; `constant` stays.
        warmup_epochs: length of the warm-up, in epochs; `cosine` and `linear` begin after it.
        warmup: `linear` rises from `warmup_lr` to `lr`, by iteration; `constant` stays at `warmup_lr`.
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: str = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    step_size: int = 30
    warmup_epochs: float = 0.0
    warmup: str = "linear"
    warmup_lr: float = 0.0

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        self.require(self.lr > 0, f"optim.lr={self.lr}: must be above 0")
        self.require(0 <= self.momentum < 1, f"optim.momentum={self.momentum}: must lie in [0, 1)")
        self.require(self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay}: must not be negative")
        self.require(self.batch_size >= 1, f"optim.batch_size={self.batch_size}: must be at least 1")
        self.require(self.step_size >= 1, f"optim.step_size={self.step_size}: must be at least 1")
        self.require(self.gamma > 0, f"optim.gamma={self.gamma}: must be above 0")
        self.require(
            all(milestone >= 0 for milestone in self.milestones),
            f"optim.milestones={list(self.milestones)}: epochs are numbered from 0",
        )
        self.require(self.warmup_lr >= 0, f"optim.warmup_lr={self.warmup_lr}: must not be negative")
        self.require(self.warmup_epochs >= 0, f"optim.warmup_epochs={self.warmup_epochs}: must not be negative")
        self.require(not self.nesterov or self.momentum > 0, "optim.nesterov=true needs optim.momentum above 0")
        _one_of("optim.schedule", self.schedule, SCHEDULES)
        _one_of("optim.warmup", self.warmup, WARMUPS)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(Spec):
    """What is seen in training, apart from where it lies.

    Args:
        name: a data set of `dhm.data.DATASETS`.
        train_size: number of training images to keep, balanced over classes and drawn by the run's seed; 0 keeps all.
        val_fraction: share of the training images held out for validation, drawn by the run's seed.
        label_noise: share of the training labels that are replaced by another class, drawn by the run's seed.
        augment: `shift` moves an image by at most `pad` pixels (zeros outside); `resized_crop` cuts out a random part
            and resizes it to `image_size`, as on ImageNet, and does not use `pad`.
        pad: the largest shift, in pixels.
        flip: random horizontal flips.
        image_size: images are resized (shorter side) and centre-cropped to this many pixels; 0 leaves them as they are.
        resize: the shorter side before the centre crop, in pixels; 0 is `image_size`.
        decoder: reads the files for `resized_crop`: `pillow`, or `dali`, an extra, which resizes a little differently.
        mean, std: per-channel normalisation of pixels in [0, 1]; empty means those of the training images.
    """

    name: str
    train_size: int = 0
    val_fraction: float = 0.0
    label_noise: float = 0.0
    augment: str = "shift"
    pad: int = 4
    flip: bool = True
    image_size: int = 0
    resize: int = 0
    decoder: str = "pillow"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for name in ("train_size", "pad", "image_size", "resize"):
            self.require(getattr(self, name) >= 0, f"data.{name}={getattr(self, name)}: must not be negative")
        for name in ("val_fraction", "label_noise"):
            self.require(0 <= getattr(self, name) < 1, f"data.{name}={getattr(self, name)}: must lie in [0, 1)")
        self.require(len(self.mean) == len(self.std), "data.mean and data.std must have the same length")
        self.require(all(s > 0 for s in self.std), f"data.std={list(self.std)}: must be above 0")
        _one_of("data.augment", self.augment, AUGMENTATIONS)
        _one_of("data.decoder", self.decoder, DECODERS)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(Spec):
    """What is trained and how.

    The method follows from the fields: without branches it is `plain`; with branches it is `dsl` (deep supervision),
    or `dhm` where the heads also mimic each other.

    Args:
        arch: a backbone of `dhm.backbones.ARCHITECTURES`.
        epochs: passes over the training images.
        branches: side branches; kept in the order of their nodes. One that never forks is left out.
        mimic: the mimicking loss, or none.
        terms: further terms of the objective.
        dropout: probability, for the families that have dropout (wide ResNet, DenseNet).
        precision: `float32`, or `bf16` for autocast to bfloat16 (the loss stays in float32).
        fork_scaling: of the losses of a branch that forks with a probability: `none` takes them as they are, `inverse`
            divides a term by the probability that it is there, which leaves its expectation unchanged.
        tf32: TensorFloat-32 for float32 matrix products and convolutions, on GPUs that have it.
        replicas: processes, each on a device of its own, that share every batch of `optim.batch_size` images and
            average their gradients. Each normalises by its own share, and drops out by draws of its own.
        sync_batch_norm: replicas normalise by the whole batch instead; on GPUs alone.
    """

    arch: str
    epochs: int
    data: DataSpec
    optim: OptimSpec = dataclasses.field(default_factory=OptimSpec)
    branches: tuple[BranchSpec, ...] = ()
    mimic: MimicSpec | None = None
    terms: tuple[TermSpec, ...] = ()
    dropout: float = 0.0
    precision: str = "float32"
    tf32: bool = False
    fork_scaling: str = "none"
    replicas: int = 1
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        given = len(self.branches)
        forking = [branch for branch in self.branches if branch.fork_probability > 0]
        object.__setattr__(self, "branches", tuple(sorted(forking, key=_place)))
        if given and not forking:
            object.__setattr__(self, "mimic", None)
        self.require(self.epochs >= 1, f"epochs={self.epochs}: must be at least 1")
        self.require(self.replicas >= 1, f"replicas={self.replicas}: must be at least 1")
        self.require(0 <= self.dropout < 1, f"dropout={self.dropout}: must lie in [0, 1)")
        self.require(
            self.mimic is None or len(self.branches) > 0,
            "heads can mimic each other only where there are side branches: give branches, or leave mimic out",
        )
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("fork_scaling", self.fork_scaling, FORK_SCALINGS)
        for pair in self.mimic.listed if self.mimic is not None else ():
            for head in (pair.student, pair.teacher):
                if head not in self.heads:
                    raise unknown("head in mimic.listed", head, self.heads)

    @property
    def method(self) -> str:
        """`plain`, `dsl` or `dhm`."""
        if not self.branches:
            return "plain"
        return "dsl" if self.mimic is None else "dhm"

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads: `main`, then each side branch by its node (`side1`; a second one there is `side1b`)."""
        names: list[str] = ["main"]
        for index, branch in enumerate(self.branches):
            earlier = sum(other.node == branch.node for other in self.branches[:index])
            names.append(f"side{branch.node}" + (chr(ord("a") + earlier) if earlier else ""))
        return tuple(names)


def _place(branch: BranchSpec) -> tuple[int, float]:
    """How far along the backbone a branch forks; a stage's output comes after its blocks."""
    return branch.after, branch.block or math.inf


def _one_of(kind: str, name: str, choices: Sequence[str]) -> None:
    if name not in choices:
        raise unknown(kind, name, choices)

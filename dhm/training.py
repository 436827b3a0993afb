"""The state of a run: what was asked for, the network and the optimiser as they stand, and what was measured so far."""

import dataclasses
import time
from pathlib import Path

import torch

from dhm import checkpoint
from dhm.data import DataSet, load
from dhm.fields import to_dict
from dhm.metrics import ENSEMBLES
from dhm.network import BranchedNetwork, build_network
from dhm.optim import make_optimiser
from dhm.recipe import Recipe
from dhm.replicas import ALONE, Replica, check, check_batches


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Where and how a recipe is trained; nothing here is meant to change the result.

    Args:
        device: `cpu`, `cuda` or `cuda:1`; of several replicas the first one's, the others have the GPUs that follow.
        threads: of one run, or replica, on a CPU. Equal results need equal threads.
        workers: processes that decode images, for data sets that are streamed, all replicas together; 0 decodes in the
            run itself.
        data_root: folder of the data set, for those that are not embedded.
        cache: folder for decoded images and fingerprints.
        checkpoint: file of this run's checkpoint; without one nothing is saved.
        checkpoint_every: seconds after which the end of an epoch is saved; 0 saves every epoch. A run that is killed
            loses no more than that and the epoch that it was in.
        deterministic: on a GPU, kernels that give equal bits.
        channels_last: memory format of images and weights; quicker for most networks on images of 32 by 32 and more.
            Sums are taken in another order, so results differ in rounding.
        compile: torch.compile the network; quicker steps after a minute or so. Results differ in rounding.
        recompute: a stage's maps are computed again for the backward pass instead of being kept for it: about a
            third less memory, and a third to a half more time. Results are the same; not together with `compile`.
        parts: of the images that are not trained on, those that are looked at. A search looks at `val` alone.
        ensembles: whether the heads are evaluated together as well, see `dhm.metrics.with_ensembles`.
    """

    device: str = "cpu"
    threads: int = 1
    workers: int = 0
    data_root: Path | None = None
    cache: Path | None = None
    checkpoint: Path | None = None
    checkpoint_every: float = 1.0
    deterministic: bool = True
    channels_last: bool = False
    compile: bool = False
    recompute: bool = False
    parts: tuple[str, ...] = ("val", "test")
    ensembles: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class EpochRecord:
    """What an epoch measured. Errors are in percent; `time` is in seconds since 1970."""

    epoch: int
    time: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a run found.

    Attributes:
        history: every epoch, also those before a resume.
        class_errors: top-1 error of every class in percent at the last epoch, by head.
        seconds: wall time of training and evaluation, all attempts together.
        step_ms: median over epochs of the mean wall time of a step.
    """

    history: tuple[EpochRecord, ...]
    network: BranchedNetwork
    class_errors: dict[str, dict[str, float]]
    seconds: float
    step_ms: float

    @property
    def final(self) -> dict[str, float]:
        """The last epoch's test errors; the reading by which arms are compared. Empty where they were not looked at."""
        return _test_errors(self.history[-1])

    @property
    def best(self) -> dict[str, float]:
        """The test errors at the main branch's best epoch, and that `epoch` (the first of equals), as the released
        code reports it. It selects on the test set: hold only published figures against it."""
        if not self.final:
            return {}
        record = min(self.history, key=lambda record: record.metrics["test/top1_error"])
        return {**_test_errors(record), "epoch": float(record.epoch)}


class NotFiniteError(ArithmeticError):
    """A loss that is no number any more; says at which step, and the terms."""


class Training:
    """The state of a run.

    Attributes:
        recipe, seed, runtime: what was asked for.
        replica: which one of the run's replicas this is.
        network, optimiser: as they stand.
        model: the network as it is called in a training step; with several replicas it averages their gradients.
        held_out: the images that are not trained on, by part: `val` (may be empty) and `test`, or what the runtime's
            `parts` leave of them.
        history: epochs done.
        saved: epochs that the newest checkpoint holds, or would hold where the runtime names a file for it.
        step: steps done in the present epoch, of `steps`.
        notes: what happened that a reader of the record should know, such as a damaged checkpoint.
    """

    def __init__(
        self, recipe: Recipe, seed: int, runtime: Runtime, data: DataSet | None = None, replica: Replica = ALONE
    ) -> None:
        self.recipe, self.seed, self.runtime, self.replica = recipe, seed, runtime, replica
        self.device = torch.device(replica.device(runtime.device))
        self.data = data or load(recipe.data, runtime.data_root, runtime.cache)
        images = self.data.open(
            recipe.data,
            seed,
            batch_size=recipe.optim.batch_size,
            device=self.device,
            workers=-(-runtime.workers // replica.count),
            replica=replica,
            channels_last=runtime.channels_last,
        )
        self.batches = images.train
        check(recipe, runtime.device)
        check_batches(recipe, self.batches.images)
        self.held_out = {
            name: part for name, part in (("val", images.val), ("test", images.test)) if name in runtime.parts
        }
        network = build_network(recipe, in_channels=self.data.channels, num_classes=self.data.num_classes, seed=seed)
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        self.network = network.to(self.device).to(memory_format=layout)
        self.network.recompute = runtime.recompute
        if runtime.compile and runtime.recompute:
            raise ValueError("compile and recompute do not go together: leave one of them out")
        if runtime.compile:
            self.network.compile()  # in place: names in state dicts stay
        self.optimiser = make_optimiser(self.network.parameters(), recipe.optim)
        self.history: list[EpochRecord] = []
        self.class_errors: dict[str, dict[str, float]] = {}
        self.seconds = 0.0
        self.step_seconds: list[float] = []
        self.step, self.steps = 0, len(self.batches)
        self.notes: list[str] = []
        self._resume()
        self.saved, self._saved_at = self.epoch, time.monotonic()
        if float(replica.total(torch.tensor(self.epoch, device=self.device))) != replica.count * self.epoch:
            raise ValueError(f"the replicas found different checkpoints at {runtime.checkpoint}: start the run again")
        self.model = replica.parallel(self.network, recipe)

    @property
    def evaluated(self) -> tuple[str, ...]:
        """What is evaluated: the heads, and their ensembles where these are asked for and there are several heads."""
        heads = self.recipe.heads
        return (*heads, *ENSEMBLES) if self.runtime.ensembles and len(heads) > 1 else heads

    @property
    def batch_size(self) -> int:
        """Images in the batch of the present step, the shares of all replicas together."""
        size = self.recipe.optim.batch_size
        return min(size, self.batches.images - self.step * size)

    @property
    def epoch(self) -> int:
        """The epoch that is being trained, 0-based; the number of epochs done."""
        return len(self.history)

    def autocast(self) -> torch.autocast:
        """The recipe's precision, for a forward pass."""
        bf16 = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)

    def save(self) -> None:
        """Write the checkpoint if it is time for it, and after the last epoch: with it, a run that is killed ends as if
        it had not been."""
        if self.epoch < self.recipe.epochs and time.monotonic() < self._saved_at + self.runtime.checkpoint_every:
            return
        self._write_checkpoint()
        self.saved, self._saved_at = self.epoch, time.monotonic()

    def _write_checkpoint(self) -> None:
        if self.runtime.checkpoint is None:
            return
        state = {
            "recipe": to_dict(self.recipe),
            "seed": self.seed,
            "fingerprint": self.data.fingerprint,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": [dataclasses.asdict(record) for record in self.history],
            "class_errors": self.class_errors,
            "seconds": self.seconds,
            "step_seconds": self.step_seconds,
        }
        checkpoint.save(self.runtime.checkpoint, state)

    def _resume(self) -> None:
        if self.runtime.checkpoint is None:
            return
        state, problems = checkpoint.load_newest(self.runtime.checkpoint, self.device)
        self.notes += problems
        if state is None:
            if problems:
                self.notes.append("no checkpoint is left: started again from the first epoch")
            return
        wanted = (to_dict(self.recipe), self.seed, self.data.fingerprint)
        if (state["recipe"], state["seed"], state["fingerprint"]) != wanted:
            self.notes.append(f"{self.runtime.checkpoint} belongs to another run: started from the first epoch")
            return
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        # The attempt before may have had another memory format, and a fused step takes momenta to lie as weights do.
        for parameter, kept in self.optimiser.state.items():
            for name, value in kept.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.class_errors = state["class_errors"]
        self.seconds, self.step_seconds = state["seconds"], state["step_seconds"]

    def result(self) -> Result:
        """What the run found."""
        return Result(
            history=tuple(self.history),
            network=self.network,
            class_errors=self.class_errors,
            seconds=self.seconds,
            step_ms=1e3 * sorted(self.step_seconds)[len(self.step_seconds) // 2],
        )


class Callback:
    """What happens around training and is not training. Subclasses override what they need."""

    def on_start(self, training: "Training") -> None:
        """Before the first epoch of this attempt; `training.history` holds the epochs of earlier ones."""

    def on_step(self, training: "Training") -> None:
        """After every step. May raise to leave at once; the last checkpoint stands."""

    def measure(self, training: "Training") -> dict[str, float]:
        """Figures of its own for the epoch that has been trained and evaluated, to be kept in the history."""
        return {}

    def on_epoch_end(self, training: "Training") -> None:
        """After evaluation and checkpoint; the epoch is `training.history[-1]`."""


def _test_errors(record: EpochRecord) -> dict[str, float]:
    return {name.removeprefix("test/"): value for name, value in record.metrics.items() if name.startswith("test/top")}

"""Memory for time: a stage whose maps are not kept for the backward pass, but computed once more when it comes.

The result is the same to the bit. The second pass draws the first one's random numbers again, and leaves the running
statistics of batch normalisation alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from dhm.backbones.base import SeededDropout


def recomputed(stage: nn.Module, maps: Tensor) -> Tensor:
    """What a stage makes of maps (B, C, H, W); where a gradient is wanted, its own maps are computed again for it."""
    if not torch.is_grad_enabled():
        kept: Tensor = stage(maps)
        return kept
    out: Tensor = checkpoint(stage, maps, use_reentrant=False, context_fn=lambda: _passes(stage))
    return out


def _passes(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass and the second."""
    states: list[Tensor] = []
    return _noting(_generators(stage), states), _again(stage, states)


@contextmanager
def _noting(generators: list[torch.Generator], states: list[Tensor]) -> Iterator[None]:
    states += [generator.get_state() for generator in generators]
    yield


@contextmanager
def _again(stage: nn.Module, states: list[Tensor]) -> Iterator[None]:
    generators = _generators(stage)
    present = [generator.get_state() for generator in generators]
    norms = [part for part in stage.modules() if isinstance(part, _BatchNorm)]
    statistics = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    try:
        for norm, buffers in statistics:  # the second pass writes into copies, which nobody keeps
            for name, value in buffers.items():
                setattr(norm, name, value.clone())
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        yield
    finally:
        for norm, buffers in statistics:
            for name, value in buffers.items():
                setattr(norm, name, value)
        for generator, state in zip(generators, present, strict=True):
            generator.set_state(state)


def _generators(stage: nn.Module) -> list[torch.Generator]:
    """Those that its dropout layers draw from, each once."""
    found = {id(part.generator): part.generator for part in stage.modules() if isinstance(part, SeededDropout)}
    return [generator for generator in found.values() if generator is not None]

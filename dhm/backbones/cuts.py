"""A model cut into stem, stages and classifier, where its own forward pass allows it.

The pass is traced down to its blocks: modules with parts of their own, or, in a plain chain of layers such as VGG, the
activations. What each hands on is read off without weights at two sizes of image: the axes that grow with the image
are those of space. A stage is a run of blocks whose maps have one size, with whatever stands before its first block
(pooling, a downsampling convolution). The stem is what precedes the first block, the classifier what follows the last.
"""

import bisect
import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

PROBES = (256, 512)  # pixels a side; large, so that convolutions without padding do not blur a stride


@dataclasses.dataclass(frozen=True, slots=True)
class Maps:
    """What an operation of a model hands on.

    Args:
        name: of the operation, in the traced model.
        side: in pixels, for an image of the larger probe.
        channels_last: whether they are (B, H, W, C), as in Swin. The parts of a model that is cut hand on (B, C, H, W).
    """

    name: str
    channels: int
    side: int
    channels_last: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Cuts:
    """Where a model is cut: at the end of its stem, and of every block of every stage.

    Args:
        smallest: side in pixels of the smallest image that the model takes.
    """

    stem: Maps
    stages: tuple[tuple[Maps, ...], ...]
    smallest: int

    @property
    def stem_stride(self) -> int:
        """By how much the stem reduces an image."""
        return _stride(PROBES[1], self.stem.side)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much each stage reduces its maps."""
        ends = (self.stem, *(stage[-1] for stage in self.stages))
        return tuple(_stride(before.side, after.side) for before, after in pairwise(ends))


@torch.no_grad()
def find_cuts(model: nn.Module) -> Cuts:
    """Where a model on the meta device, for images of 3 channels, can be cut. It is left in evaluation.

    Raises:
        ValueError: nowhere; says why.
    """
    graph = _trace(model.eval())
    try:
        model(_image(PROBES[0]))  # the model itself says best what is wrong
        small, large = (_shapes(model, graph, side) for side in PROBES)
    except (AssertionError, RuntimeError) as error:
        sides = " and of ".join(f"{side} by {side}" for side in PROBES)
        reason = str(error).partition("\n")[0]
        raise ValueError(f"it does not take images of {sides} pixels alike ({reason})") from error
    maps = [found for name in large if (found := _as_maps(name, small[name], large[name]))]
    layers = {node.name: model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    blocks = [one for one in maps if one.name in layers and any(layers[one.name].children())]
    blocks = blocks or [one for one in maps if isinstance(layers.get(one.name), nn.ReLU)]
    stages: list[list[Maps]] = []
    for block in blocks:
        if not stages or _stride(stages[-1][-1].side, block.side) > 1:
            stages.append([])
        stages[-1].append(block)
    if len(stages) < 2:
        raise ValueError("it has no blocks that hand on maps of different sizes")
    before = list(large)[: list(large).index(blocks[0].name)]
    stem = next(one for one in reversed(maps) if one.name in before)
    return Cuts(stem, tuple(map(tuple, stages)), _smallest(model))


def split(model: nn.Module, cuts: Cuts) -> Iterator[fx.GraphModule]:
    """The parts of a model: its stem, every block with what precedes it, and its classifier.

    They hold the model's own modules under the model's own names, and do the same operations in the same order. An
    activation that begins a part leaves the maps that it is given as they are: they may be wanted once more.

    Raises:
        ValueError: more than one tensor goes from a part to those that follow.
    """
    *nodes, output = _trace(model).nodes
    names = [node.name for node in nodes]
    entry, entry_last = 0, False
    for cut in (cuts.stem, *(block for stage in cuts.stages for block in stage), None):
        end = len(nodes) - 1 if cut is None else names.index(cut.name)
        end_last = cut is not None and cut.channels_last
        graph = fx.Graph()
        value = graph.placeholder("maps")
        if entry_last:
            value = graph.call_method("permute", (value, 0, 2, 3, 1))
        values = {nodes[entry]: value}
        for node in nodes[entry + 1 : end + 1]:
            if any(source not in values for source in node.all_input_nodes):
                raise ValueError(f"more than one tensor goes past {nodes[entry].name} to {node.name}")
            if node.op == "call_module" and nodes[entry] in node.all_input_nodes:
                first: Any = model.get_submodule(str(node.target))
                if hasattr(first, "inplace"):
                    first.inplace = False
            value = values[node] = graph.node_copy(node, values.__getitem__)
        graph.output(graph.call_method("permute", (value, 0, 3, 1, 2)) if end_last else value)
        yield fx.GraphModule(model, graph)
        entry, entry_last = end, end_last
    assert output.args == (nodes[-1],), "the last operation gives the logits"


class _Tracer(fx.Tracer):
    """Goes into sequences of modules, and no further."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).forward is not nn.Sequential.forward


def _trace(model: nn.Module) -> fx.Graph:
    return _Tracer().trace(model)


def _shapes(model: nn.Module, graph: fx.Graph, side: int) -> dict[str, torch.Size]:
    """The shape of every tensor in the model, by the operation that makes it, for an image of a size."""
    run = fx.Interpreter(model, garbage_collect_values=False, graph=graph)
    run.run(_image(side))
    return {node.name: value.shape for node, value in run.env.items() if isinstance(value, Tensor)}


def _as_maps(name: str, small: torch.Size, large: torch.Size) -> Maps | None:
    growing = [axis for axis in range(len(large)) if small[axis] != large[axis]]
    if len(large) != 4 or growing not in ([2, 3], [1, 2]):
        return None
    last = growing == [1, 2]
    return Maps(name, channels=large[3 if last else 1], side=large[growing[0]], channels_last=last)


def _smallest(model: nn.Module) -> int:
    def takes(side: int) -> bool:
        try:
            model(_image(side))
        except RuntimeError:
            return False
        return True

    sides = range(1, PROBES[0])
    return 1 if takes(1) else sides[bisect.bisect_left(sides, True, key=takes)]


def _image(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def _stride(before: int, after: int) -> int:
    return max(1, round(before / after))

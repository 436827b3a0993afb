"""How this machine and this code differ from those that made a record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.recording.patch import Patch, commit_of, working_tree
from experiments.recording.provenance import code_hash, environment, numerics
from experiments.reproduction.record import RunRecord

# Packages that compute, or that read images; the others cannot change a number.
COMPUTING = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pillow", "triton", "nvidia-", "intel-", "mkl")
MACHINE = ("processor", "cores", "platform", "cuda", "gpus")
BUILD = ("torch", "torch_commit", "cpu_capability", "mkldnn", "default_dtype", "float32_matmul_precision")


def disagreements(record: RunRecord, tree: Path) -> list[str]:
    """What differs, a line each; nothing where all agrees.

    Args:
        tree: the working tree whose `dhm` is to run.
    """
    return [*_code(record, tree), *_packages(record.environment), *_machine(record.environment)]


def _code(record: RunRecord, tree: Path) -> list[str]:
    here = code_hash(tree / "dhm")
    if here != record.code:
        return [f"code: dhm/ was {record.code}, and is {here}: what it does may differ (--checkout runs the recorded)"]
    commit = commit_of(tree)
    patch = (working_tree(tree) if commit else Patch()).text.encode("utf-8", "surrogateescape")
    recorded = record.patch.read_bytes() if record.patch else b""
    if commit == record.commit and patch == recorded:
        return []
    return [f"commit: {_short(record.commit, recorded)}, now {_short(commit, patch)}; dhm/ says the same in both"]


def _short(commit: str | None, patch: bytes) -> str:
    return (commit or "unknown")[:10] + (" with changes" if patch else "")


def _packages(recorded: Mapping[str, Any]) -> list[str]:
    here, there = environment()["packages"], recorded.get("packages", {})
    changed = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    computing = [name for name in changed if name.startswith(COMPUTING)]
    lines = [f"{name}: was {there.get(name, 'absent')}, is {here.get(name, 'absent')}" for name in computing]
    if len(changed) > len(computing):
        lines.append(f"{len(changed) - len(computing)} packages differ that do not compute")
    return lines


def _machine(recorded: Mapping[str, Any]) -> list[str]:
    here, flags = environment(), numerics()
    lines = [] if recorded.get("python") == here["python"] else [_changed("python", recorded, here)]
    lines += [_changed(name, recorded, here) for name in MACHINE if recorded.get(name) != here[name]]
    there = recorded.get("numerics", {})
    return lines + [_changed(name, there, flags) for name in BUILD if there.get(name) != flags[name]]


def _changed(name: str, recorded: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return f"{name}: was {recorded.get(name, 'not recorded')}, is {here[name]}"

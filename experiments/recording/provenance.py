"""What made a result: commit, changes since, a hash of the code that ran, versions, hardware, and what of them bends
numbers."""

import ast
import dataclasses
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dhm
from experiments.recording.patch import Patch, commit_of, working_tree

ROOT = Path(dhm.__file__).resolve().parents[1]
# Environment variables by which libraries choose other kernels, other threads or another precision.
VARIABLES = (
    "ATEN_", "BLIS_", "CUBLAS", "CUDA_", "CUDNN_", "DNNL_", "GOMP_", "KMP_", "MKL", "NCCL_", "NVIDIA_TF32", "OMP_",
    "ONEDNN_", "OPENBLAS_", "PYTHONHASHSEED", "PYTORCH_", "TORCH",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Collected once by the scheduler, written into every record.

    Args:
        commit: of the repository; "unknown" outside of one.
        patch: uncommitted changes to source files, empty where there are none.
        code: see `code_hash`.
        environment: see `environment`; the command line, and what the patch leaves out.
    """

    commit: str
    patch: str
    code: str
    environment: dict[str, Any]


def collect(command: Sequence[str] = (), outside: Sequence[Path] = ()) -> Provenance:
    """The provenance of runs that start now.

    Args:
        command: the words that started them.
        outside: folders that hold no source, see `working_tree`.
    """
    commit = commit_of(ROOT)
    patch = Patch() if commit is None else working_tree(ROOT, outside)
    return Provenance(
        commit=commit or "unknown",
        patch=patch.text,
        code=code_hash(),
        environment={**environment(), "command": shlex.join(command), "patch_left_out": list(patch.left_out)},
    )


def code_hash(package: Path | None = None) -> str:
    """Hash of the code of `dhm`, which a recipe and a seed are handed to: what it says, not how it is laid out.

    Comments, docstrings and formatting do not count. Code that builds recipes need not be in it: what it builds is
    hashed in every cell's identity.

    Args:
        package: the folder of another `dhm` than that which runs.
    """
    package = package or Path(dhm.__file__).parent
    files = sorted(package.rglob("*.py"))
    return _code_hash(package, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@functools.cache
def _code_hash(package: Path, files: Sequence[tuple[Path, int, int]]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(_meaning(path.read_text()).encode())
    return digest.hexdigest()[:12]


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions of all that is installed, and hardware. Starts no CUDA."""
    return {
        "python": platform.python_version(),
        "packages": dict(sorted((found.name.lower(), found.version) for found in metadata.distributions())),
        "platform": platform.platform(),
        "host": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "cuda": torch.version.cuda,
    }


def gpus() -> list[dict[str, str]]:
    """The GPUs that torch sees, with name and driver. Asked of the driver's own tool, which starts no CUDA here."""
    tool = shutil.which("nvidia-smi")
    if not torch.cuda.device_count() or tool is None:
        return []
    fields = ("index", "name", "uuid", "driver_version", "memory.total", "vbios_version", "ecc.mode.current")
    command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, map(str.strip, line.split(",")), strict=False)) for line in done.stdout.splitlines()]


def numerics() -> dict[str, Any]:
    """What in this process decides how numbers come out, besides the recipe: builds, flags, variables."""
    cuda = torch.cuda.is_initialized()
    return {
        "torch": torch.__version__,
        "torch_commit": torch.version.git_version,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "flush_denormal": _flushes_denormals(),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "cudnn_enabled": torch.backends.cudnn.enabled,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "allow_tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "allow_tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "reduced_precision_bf16": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def _flushes_denormals() -> bool:
    return float(torch.tensor(1e-40) * 1.0) == 0.0


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

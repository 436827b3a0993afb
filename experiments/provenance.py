"""What made a result: commit, uncommitted changes, a hash of the code that ran, versions and hardware."""

import ast
import dataclasses
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dhm

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "mlflow", "optuna", "hydra-core")
ROOT = Path(dhm.__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Collected once by the scheduler, written into every record.

    Args:
        commit: of the repository; "unknown" outside of one.
        patch: uncommitted changes to code, empty where there are none.
        code: see `code_hash`.
        environment: versions, hardware.
    """

    commit: str
    patch: str
    code: str
    environment: dict[str, Any]


def collect() -> Provenance:
    """The provenance of runs that start now."""
    return Provenance(
        commit=_git("rev-parse", "HEAD").strip() or "unknown",
        patch=_git("diff", "HEAD", "--", "*.py", "pyproject.toml"),
        code=code_hash(),
        environment=environment(),
    )


def code_hash() -> str:
    """Hash of the code of `dhm`, which a recipe and a seed are handed to: what it says, not how it is laid out.

    Comments, docstrings and formatting do not count. Code that builds recipes need not be in it: what it builds is
    hashed in every cell's identity.
    """
    package = Path(dhm.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
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


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout

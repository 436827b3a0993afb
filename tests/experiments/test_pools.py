"""Pools are found by their files, and say what is wrong with their settings."""

from pathlib import Path
from typing import Any

import pytest

from experiments import config, pools
from experiments.pools.parts.arrangement import PoolConfig


def asked_for(name: str, words: str = "") -> tuple[Any, int]:
    """Settings of a pool, and the replicas of a run."""
    asked = config.pool_of(config.read([f"pool={name}", *(f"pool.{word}" for word in words.split())]))
    return asked, asked.gpus_per_run or 1


def test_a_pool_is_a_file() -> None:
    files = {path.stem for path in Path(pools.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(pools.names()) == files >= {"local", "slurm", "ray"}
    for name in files:
        asked, replicas = asked_for(name)
        assert isinstance(asked, PoolConfig) and (asked.kind, replicas) == (name, 1)


def test_settings_of_a_pool_are_counted() -> None:
    for word in ("slots=0", "cells_per_job=0", "slots_per_gpu=auto", "threads=0"):
        name, _, value = word.partition("=")
        with pytest.raises(ValueError, match=rf"pool\.{name}={value}"):
            pools.arrange(*asked_for("slurm", word))

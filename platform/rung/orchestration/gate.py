"""The physics gate in front of training: no epoch is spent on a model, or a code, that is no potential."""

import json
import logging
import os
from pathlib import Path

import torch

from rung.config.tree import TrainConfig
from rung.data.dataset import read_manifest
from rung.data.staging import is_url
from rung.evaluation.physics import require_physics
from rung.training.initial import load_model
from rung.training.run import RunFolder

logger = logging.getLogger(__name__)

PHYSICS_NAME = "physics.json"


def check_start(config: TrainConfig) -> None:
    """Try the initial weights of a new run, or of all trials of a sweep, and keep the figures in its folder.

    One process does it. What has begun was tried when it began; surrogate data, made by a model that was tried, need no
    gate.

    Raises:
        PhysicsError: the weights, or what evaluates them, break a law that every potential obeys.
        ValueError: weights or data cannot be read.
    """
    folder = RunFolder.of(config)
    if os.environ.get("RANK", "0") != "0" or folder.checkpoints().steps() or not _is_real(config.data.path):
        return
    torch.manual_seed(config.run.seed)
    checks = require_physics(load_model(config.model), "training")
    folder.write(PHYSICS_NAME, json.dumps([check.to_json() for check in checks], indent=1))
    logger.info("the initial weights obey the %d laws of the physics gate", len(checks))


def _is_real(path: str) -> bool:
    """Whether the data are more than a surrogate's; data that only the workers can see count as real."""
    if is_url(path):
        return True
    return bool(read_manifest(Path(path).expanduser())[0].source.get("is_dft", True))

"""Every overlay and component renders and is valid; planted mistakes are not."""

import copy
import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from rung.config.load import load_config
from rung.config.tree import FinetuneConfig, PrepareConfig, TrainConfig

from tests.k8s.manifests import K8S, KUBECTL, ROOT, Object, amount, pods, ray_spec, reference_faults, render, schema_faults
from tests.k8s.mistakes import MISTAKES, plant

"""What the room of configurations gives by name."""

from __future__ import annotations

import subprocess
import sys

import rerank_core.config


def test_every_public_name_is_there() -> None:
    assert {name: getattr(rerank_core.config, name).__name__ for name in rerank_core.config.__all__} == {
        name: name for name in rerank_core.config.__all__
    }


def test_a_night_builds_no_training_configuration() -> None:
    code = "import sys, rerank_core.config.night; print('rerank_core.config.training' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"

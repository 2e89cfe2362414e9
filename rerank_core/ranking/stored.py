"""The fusion and the calibration stored in a model's folder, as a night and `rank` read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerank_core.errors import CalibrationError, FusionError, ModelError
from rerank_core.inference.model_folder import local_folder
from rerank_core.ranking import calibration, fusion
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import Fusion
from rerank_core.scoring.load import DEFAULT_MODEL

Contents = dict[str, Any]


def read_calibration(model: str) -> tuple[Calibration, Contents | None]:
    """A model's calibration and its file's contents; the plain sigmoid and None where it has none.

    Args:
        model: a folder, a name on the Hugging Face Hub, or "" for the model that ships.

    Raises:
        ModelError: the file is damaged.
    """
    folder = local_folder(model or DEFAULT_MODEL, [calibration.FILE])
    try:
        return calibration.read(folder), calibration.describe(folder)
    except CalibrationError as error:
        raise ModelError(str(error)) from None


def read_fusion(
    model: str, *, weights: str = "", required: bool = False
) -> tuple[Fusion | None, Contents | None]:
    """A model's fusion weights and their file's contents; None and None where it has none.

    Args:
        model: a folder, a name on the Hugging Face Hub, or "" for the model that ships.
        weights: a file of weights in place of the folder's, which then must exist.
        required: a missing file is an error.

    Raises:
        ModelError: the file is damaged, or missing though it must exist.
    """
    path = Path(weights or local_folder(model or DEFAULT_MODEL, [fusion.FILE]) / fusion.FILE)
    if not (weights or required or path.is_file()):
        return None, None
    try:
        return fusion.read(path), fusion.describe(path)
    except FusionError as error:
        raise ModelError(str(error)) from None

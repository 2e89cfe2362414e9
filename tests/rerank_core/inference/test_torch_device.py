"""Models and devices for PyTorch: the Hub's cache, and every refusal names its remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
transformers = pytest.importorskip("transformers")

from rerank_core.errors import ModelError
from rerank_core.scoring.backends.torch import TorchScorer
from tests.support.tiny_models import write_cross_encoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("models") / "bert")


OFFLINE = """
import sys
from rerank_core.errors import ModelError
from rerank_core.scoring.backends.torch import TorchScorer
scorer = TorchScorer("org/name", max_length=40)
print(scorer.fingerprint, scorer.score([("who wrote dune", "frank herbert")])[0])
try:
    TorchScorer("org/absent")
except ModelError as error:
    print(error)
"""


def test_a_name_on_the_hub_without_a_network(bert: Path, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    cached = tmp_path / "hub" / "models--org--name"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(bert, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    first, second = done.stdout.splitlines()
    scorer = TorchScorer(bert, max_length=40)
    assert first.split()[0] == scorer.fingerprint
    assert float(first.split()[1]) == pytest.approx(
        scorer.score([("who wrote dune", "frank herbert")])[0], abs=1e-6
    )
    assert second.startswith(
        "no folder org/absent, and no such model could be downloaded from the Hugging Face Hub"
    )
    assert "download the model once and name its folder" in second


def test_weights_in_a_pickle_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*.safetensors in .*save it with model.save_pretrained"):
        TorchScorer(folder)


def test_a_model_with_code_of_its_own_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "own")
    (folder / "modeling_mine.py").write_text("raise SystemExit('the code ran')")
    names = {"AutoConfig": "modeling_mine.C", "AutoModelForSequenceClassification": "modeling_mine.M"}
    config = {**json.loads((folder / "config.json").read_text()), "model_type": "mine", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match="it needs its own code, which is not run: .*set scoring.trust_remote_code"
    ):
        TorchScorer(folder, max_length=40)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "base", task="Model")
    with pytest.raises(
        ModelError, match=r"lack classifier.bias, classifier.weight, so that it is not a model"
    ):
        TorchScorer(folder, max_length=40)


def test_a_tokenizer_of_another_model_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "mixed")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["foreign"] = 30_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"ids up to 30000, its model has \d+ of them"):
        TorchScorer(folder, max_length=40)


def test_damaged_files_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded: copy the folder again"):
        TorchScorer(folder, max_length=40)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer in .* cannot be loaded"):
        TorchScorer(folder, max_length=40)


def test_a_missing_gpu_is_an_error_unless_allowed(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"device is 'cuda', but .*allow_fallback = true"):
        TorchScorer(bert, max_length=40, device="cuda")
    scorer = TorchScorer(bert, max_length=40, device="cuda", allow_fallback=True)
    assert (scorer.device, scorer.max_tokens, scorer.chunk) == ("cpu", 2048, 512)
    assert scorer.fingerprint == TorchScorer(bert, max_length=40).fingerprint

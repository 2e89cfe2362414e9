"""The model card of a training."""

from __future__ import annotations

from typing import Any

from rerank_core.config.training import TrainingConfig, parse_training_config
from rerank_core.training.model_card import card
from rerank_core.training.package import Check

DATA = {
    "name": "one",
    "source": "hard_negatives",
    "counts": {"groups": 1200, "negatives": 7000, "groups_held_out": 3},
    "runs": [
        {
            "run_id": "r1",
            "run_date": "2026-03-08",
            "created_at": "2026-03-09T01:00:00+00:00",
            "labels": "clicks",
            "model_fingerprint": "f" * 64,
            "rows": 7100,
        }
    ],
}
STAGE = {
    "kind": "stage",
    "stage": "one",
    "step": 40,
    "examples": 1200,
    "loss_first": 0.7,
    "loss_last": 0.5,
    "parameters": 1000,
    "parameters_trained": 100,
}


def config(**fields: Any) -> TrainingConfig:
    stage = {"name": "one", "runs": ["night"], "loss": "listwise"}
    return parse_training_config({"model": "base", "output": "model", "stages": [stage]} | fields)


def written(settings: TrainingConfig, **options: Any) -> str:
    given: dict[str, Any] = {
        "base": "`base`",
        "command": "nightrank train --config t.toml",
        "toml": "seed = 7\n",
        "version": "1.2",
        "data": [DATA],
        "dev_sets": [],
        "lines": [STAGE],
        "check": Check(56, 1e-6, 0.01, 0.03),
        "max_steps": 0,
    }
    return card(settings, **given | options)


def test_a_card_has_data_figures_and_command() -> None:
    text = written(config(licence="apache-2.0", lora={"r": 8}))
    assert text.startswith("---\nlibrary_name: sentence-transformers\n")
    for part in (
        "license: apache-2.0",
        "fine-tuned by Nightrank 1.2",
        "1,200 positives, 7,000 negatives; left out: 3 positives of queries that are in a dev set",
        "## Figures",
        "| one | listwise | 1,200 | 40 | 0.7000, 0.5000 | not measured |",
        "No dev set was configured",
        "100 of 1,000 parameters (one)",
        "    nightrank train --config t.toml\n",
        "```toml\nseed = 7\n```",
    ):
        assert part in text
    assert "trial" not in text


def test_a_trial_and_a_missing_licence_are_stated() -> None:
    text = written(config(), max_steps=20, dev_sets=["set (dev), 9 judged queries"])
    assert "**A trial**: every stage was stopped after at most 20 steps." in text
    assert "Licence: not stated" in text
    assert "- set (dev), 9 judged queries" in text


def test_a_card_says_what_the_model_is_and_how_its_logit_is_had() -> None:
    cross, bi = written(config()), written(config(), check=Check(56, 1e-6, 0.01, 0.03, bi_encoder=True))
    assert "pipeline_tag: text-ranking\ntags: [cross-encoder, reranker]" in cross
    assert "# A cross-encoder, fine-tuned" in cross
    assert "pipeline_tag: sentence-similarity\ntags: [bi-encoder, reranker]" in bi
    assert "# A bi-encoder, fine-tuned" in bi
    assert "`offset` of `logit` in `nightrank.json`" in bi

"""The other libraries of `benchmarks.scoring`, each used as its documentation says, in a separate environment:

    python -m venv peers && peers/bin/pip install -r benchmarks/peers.txt

(sentence-transformers' ONNX and OpenVINO backends need older packages than ours.) Reads JSON lines from stdin and
answers each with one: {"open": NAME, "model": FOLDER, "work": FOLDER, "calibration": [[query, passage], ...]} or
{"score": [[query, [passage, ...]], ...]}. It does not import Nightrank.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}

Groups = list[tuple[str, list[str]]]
MAX_LENGTH = 256


def flat(groups: Groups) -> list[tuple[str, str]]:
    return [(query, passage) for query, passages in groups for passage in passages]


def sentence_transformers(model: Path, **options: Any) -> Callable[[Groups], list[float]]:
    """`CrossEncoder.predict` of all pairs at once, as its documentation advises: it sorts them by length itself."""
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        str(model), device="cpu", max_length=MAX_LENGTH, activation_fn=torch.nn.Identity(), **options
    )
    return lambda groups: encoder.predict(flat(groups), show_progress_bar=False).tolist()


def st_onnx(model: Path, work: Path, precision: str) -> Callable[[Groups], list[float]]:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    if precision == "fp32":
        return sentence_transformers(model, backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"})
    copy = copied(model, work)
    if not list(copy.glob("onnx/*qint8*")):
        encoder = CrossEncoder(
            str(copy), device="cpu", backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"}
        )
        export_dynamic_quantized_onnx_model(encoder, "avx512_vnni", str(copy))
    name = str(next(iter(copy.glob("onnx/*qint8*"))).relative_to(copy))
    return sentence_transformers(copy, backend="onnx", model_kwargs={"file_name": name})


def st_openvino(model: Path, work: Path, calibration: list[list[str]]) -> Callable[[Groups], list[float]]:
    """Static int8 by NNCF, calibrated on the pairs of our engine instead of a data set on the Hub."""
    import nncf
    import openvino
    from transformers import AutoTokenizer

    copy = copied(model, work)
    target = copy / "openvino" / "openvino_model_qint8_quantized.xml"
    if not target.exists():
        tokenizer = AutoTokenizer.from_pretrained(copy)
        graph = openvino.Core().read_model(str(copy / "onnx" / "model.onnx"))
        sample = [
            dict(tokenizer(q, p, truncation=True, max_length=MAX_LENGTH, return_tensors="np"))
            for q, p in calibration
        ]
        small = nncf.quantize(
            graph, nncf.Dataset(sample), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(sample)
        )
        target.parent.mkdir(exist_ok=True)
        openvino.save_model(small, str(target), compress_to_fp16=False)
    name = "openvino_model_qint8_quantized.xml"
    return sentence_transformers(copy, backend="openvino", model_kwargs={"file_name": f"openvino/{name}"})


def flashrank(model: Path, work: Path) -> Callable[[Groups], list[float]]:
    """All passages of a query in one run; the dynamic int8 weights under the name of one of its models."""
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    name = "ms-marco-MiniLM-L-12-v2"
    folder = work / "flashrank" / name
    if not folder.exists():
        st_onnx(model, work, "int8")
        folder.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(model / file, folder / file)
        (folder / "special_tokens_map.json").write_text(
            json.dumps({f"{t}_token": f"[{t.upper()}]" for t in ("unk", "sep", "pad", "cls", "mask")})
        )
        quantised = next(iter(copied(model, work).glob("onnx/*qint8*")))
        shutil.copy(quantised, folder / model_file_map[name])
    ranker = Ranker(model_name=name, cache_dir=str(folder.parent), max_length=MAX_LENGTH, log_level="ERROR")

    def score(groups: Groups) -> list[float]:
        scores: list[float] = []
        for query, passages in groups:
            request = RerankRequest(
                query=query, passages=[{"id": i, "text": p} for i, p in enumerate(passages)]
            )
            by_id = {row["id"]: float(row["score"]) for row in ranker.rerank(request)}
            scores += [by_id[i] for i in range(len(passages))]
        return scores

    return score


def rerankers(model: Path) -> Callable[[Groups], list[float]]:
    from rerankers import Reranker

    ranker = Reranker(str(model), model_type="cross-encoder", device="cpu", dtype="float32", verbose=0)

    def score(groups: Groups) -> list[float]:
        scores: list[float] = []
        for query, passages in groups:
            by_id = {row.doc_id: row.score for row in ranker.rank(query, passages).results}
            scores += [float(by_id[i]) for i in range(len(passages))]
        return scores

    return score


def copied(model: Path, work: Path) -> Path:
    """A copy of the model's folder to which files may be added."""
    copy = work / "st"
    if not copy.exists():
        shutil.copytree(model, copy, ignore=shutil.ignore_patterns("work", "openvino", "*int8*"))
    return copy


def opened(order: dict[str, Any]) -> Callable[[Groups], list[float]]:
    name, model, work = order["open"], Path(order["model"]), Path(order["work"])
    work.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], Callable[[Groups], list[float]]]] = {
        "st_default": lambda: sentence_transformers(model),
        "st_onnx": lambda: st_onnx(model, work, "fp32"),
        "st_onnx_int8": lambda: st_onnx(model, work, "int8"),
        "st_openvino_int8": lambda: st_openvino(model, work, order["calibration"]),
        "flashrank": lambda: flashrank(model, work),
        "rerankers": lambda: rerankers(model),
    }
    return makers[name]()


def main() -> None:
    answers = sys.stdout
    score: Callable[[Groups], list[float]] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        # Some libraries print, but stdout is for the answers only.
        with contextlib.redirect_stdout(io.StringIO()):
            if "open" in order:
                score = opened(order)
                reply: dict[str, Any] = {"opened": order["open"]}
            else:
                assert score is not None
                start = time.perf_counter()
                logits = score(order["score"])
                reply = {"seconds": time.perf_counter() - start, "scores": logits}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()

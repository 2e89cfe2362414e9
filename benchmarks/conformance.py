"""Every cross-encoder as its own library: architectures x settings of a folder x engines, compared by their logits.

A cell is an architecture with one setting of its folder on one engine. It holds if the logits equal those that
sentence-transformers' CrossEncoder computes for the same folder pair by pair, alone and in a batch; or if the folder is
refused by a message that names a file or a setting. Anything else fails: other logits, a traceback, a refusal that
names nothing.

Architectures are all that transformers can classify sequences with, at toy size (`benchmarks.toy_models`). ONNX Runtime
and OpenVINO read what Nightrank's own exporter writes; where it cannot, a training ends with that message, which counts
as a refusal. KINDS are tried with all settings, every other architecture as it is written and with two, in turns.

    python -m benchmarks.conformance [--quick] [--json FILE] [--kinds NAME ...] [--all]
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from benchmarks.common import parser, report
from benchmarks.toy_models import CANNOT_BE_MADE, kinds, write_toy
from rerank_core.errors import ModelError
from rerank_core.inference.model_folder import read_json
from rerank_core.scoring.backends.torch import TorchScorer
from rerank_core.scoring.batch_check import check_batches
from rerank_core.scoring.load import load_scorer
from rerank_core.text import shorten
from rerank_core.training.package import export_fp32

KINDS = ("bert", "roberta", "deberta-v2", "modernbert", "distilbert", "qwen3", "llama", "gpt2", "bart")
"""Architectures of published rerankers, or close to them: tried with every setting."""

QUICK = ("bert", "roberta", "qwen3")
LENGTH = 60
TOLERANCE = 2e-3  # of logits of about 1; OpenVINO's fp32 alone needs more than 1e-4
EXPORTED = "exported.txt"  # why there is no ONNX file
# Of a refusal: it names a file of the folder, or a setting.
NAMED = re.compile(
    r"[\w-]\.(?:json|jinja|onnx|safetensors|xml)\b|scoring\.\w|the (?:tokenizer|model|weights) in "
)
PAIRS = (
    ("who wrote dune", "dune was written by frank herbert"),
    ("Who WROTE the novel", "Sand moves the sand moves the SAND by herbert frank, who wrote of it " * 4),
    ("the novel", "x"),
    ("who", "the sand, é ü, moves the novel"),
)


# --- settings of a folder: each changes files, as somebody's folder may have them


def _edit(path: Path, **values: Any) -> None:
    contents = read_json(path) | values
    path.write_text(json.dumps({k: v for k, v in contents.items() if v is not ...}), encoding="utf-8")


def _config(folder: Path, **values: Any) -> None:
    _edit(folder / "config.json", **values)


def _tokenizer_config(folder: Path, **values: Any) -> None:
    _edit(folder / "tokenizer_config.json", **values)


def _prompt(folder: Path) -> None:
    """As sentence-transformers writes it beside its modules."""
    peer = CrossEncoder(
        str(folder), prompts={"search": "novel written by "}, default_prompt_name="search", device="cpu"
    )
    peer.save_pretrained(str(folder), create_model_card=False)


def _chat_template(folder: Path) -> None:
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}the novel"
    (folder / "chat_template.jinja").write_text(template)


def _other_pad_id(folder: Path) -> None:
    config = read_json(folder / "config.json")
    _config(folder, pad_token_id=3 if config.get("pad_token_id") != 3 else 1)


def _two_labels(first: str, second: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _config(folder, id2label={"0": first, "1": second}, label2id={first: 0, second: 1})

    return change


SETTINGS: dict[str, Callable[[Path], None]] = {
    "as written": lambda folder: None,
    "prompt": _prompt,
    "chat template": _chat_template,
    "casing": lambda folder: _tokenizer_config(folder, tokenizer_class="BertTokenizer", do_lower_case=False),
    "fewer inputs": lambda folder: _tokenizer_config(
        folder, model_input_names=["input_ids", "attention_mask"]
    ),
    "more inputs": lambda folder: _tokenizer_config(
        folder, model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    ),
    "truncation on the left": lambda folder: _tokenizer_config(folder, truncation_side="left"),
    "two labels": lambda folder: None,
    "second label relevant": _two_labels("not_relevant", "relevant"),
    "first label relevant": _two_labels("relevant", "not_relevant"),
    "labels without meaning": _two_labels("blue", "green"),
    "another padding id": _other_pad_id,
    "no padding id": lambda folder: _config(folder, pad_token_id=None),
    "padding on the left": lambda folder: _tokenizer_config(folder, padding_side="left"),
    "activation": lambda folder: _config(
        folder, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}
    ),
}
# An exported file has the inputs and the padding id that it was exported with.
EXPORTED_ANEW = ("more inputs", "another padding id", "no padding id")
TWO_LABELS = {
    "two labels": 1,
    "second label relevant": 1,
    "first label relevant": 0,
    "labels without meaning": 1,
}


# --- engines


def _padded(folder: Path) -> TorchScorer:
    scorer = TorchScorer(folder, max_length=LENGTH, unpadded=False)
    check_batches(scorer, model=str(folder))
    return scorer


ENGINES: dict[str, Callable[[Path], Any]] = {
    "torch": lambda folder: load_scorer(folder, backend="torch", max_length=LENGTH),
    "torch, padded": _padded,
    "onnx": lambda folder: load_scorer(folder, backend="onnx", max_length=LENGTH),
    "openvino": lambda folder: load_scorer(folder, backend="openvino", max_length=LENGTH),
}


class Cell(NamedTuple):
    """One architecture with one setting on one engine."""

    kind: str
    setting: str
    engine: str
    outcome: str  # equal | refused | failed, or "no reference": the own library fails, too
    detail: str = ""


def sweep(names: Sequence[str], *, everything: Sequence[str] = (*KINDS, *QUICK)) -> Iterator[Cell]:
    """The cells of some architectures.

    Args:
        names: architectures, as `kinds()` lists them.
        everything: those of them that are tried with every setting; the others with two, in turns.
    """
    others = [name for name in SETTINGS if name != "as written"]
    for number, kind in enumerate(names):
        with tempfile.TemporaryDirectory() as work:
            turn = [others[(2 * number + i) % len(others)] for i in range(2)]
            for setting in ["as written", *(others if kind in everything else turn)]:
                yield from _cells(kind, setting, Path(work))


def _cells(kind: str, setting: str, work: Path) -> Iterator[Cell]:
    labels = 2 if setting in TWO_LABELS else 1
    base = work / f"base-{labels}"
    if not base.is_dir():
        write_toy(base, kind, num_labels=labels)
        (base / EXPORTED).write_text(_export(base))
    if setting == "casing" and '"WordPiece"' not in (base / "tokenizer.json").read_text():
        return  # BERT's classes alone read it
    if setting in ("prompt", "chat template") and _reads_images(base):
        return  # sentence-transformers alone reads them
    folder = shutil.copytree(base, work / setting)
    try:
        SETTINGS[setting](folder)
        if setting in EXPORTED_ANEW:
            (folder / EXPORTED).write_text(_export(folder))
        expected = _reference(folder, relevant=TWO_LABELS.get(setting))
    except Exception as error:  # whatever the library raises
        yield Cell(kind, setting, "", "no reference", f"{type(error).__name__}: {shorten(str(error))}")
        expected = None
    exported = (folder / EXPORTED).read_text()
    for engine, open_scorer in ENGINES.items():
        if engine in ("onnx", "openvino") and exported:
            yield Cell(kind, setting, engine, "refused", exported)
        elif cell := _compare(Cell(kind, setting, engine, ""), lambda: open_scorer(folder), expected):  # noqa: B023
            yield cell
    shutil.rmtree(folder)


def _export(folder: Path) -> str:
    """Export the folder's model as a training does; why that would be refused, or ""."""
    try:
        export_fp32(folder, AutoTokenizer.from_pretrained(folder))
    except Exception as error:  # as in rerank_core.training.package
        shutil.rmtree(folder / "onnx", ignore_errors=True)
        return f"the model cannot be exported to ONNX ({type(error).__name__}: {shorten(str(error))})"
    try:
        logits = load_scorer(folder, max_length=LENGTH).score(PAIRS)
        apart = float(np.abs(logits - _reference(folder, relevant=1)).max())
    except ModelError as error:
        return f"the exported model cannot be used ({shorten(str(error), limit=300)})"
    except Exception:  # what fails is seen in the cells
        return ""
    return (
        ""
        if apart < 1e-3
        else f"torch cannot export this architecture correctly (logits differ by {apart:.3g})"
    )


def _reference(folder: Path, *, relevant: int | None) -> np.ndarray:
    """The own library's logits, each pair alone."""
    if _reads_images(folder):
        logits = _by_transformers(folder)
    else:
        peer = CrossEncoder(str(folder), max_length=LENGTH, device="cpu")
        logits = peer.predict(
            list(PAIRS), batch_size=1, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    logits = np.asarray(logits, np.float32).reshape(len(PAIRS), -1)
    if logits.shape[1] == 1:
        return logits[:, 0]
    return (logits[:, 1] - logits[:, 0]) * (1 if relevant == 1 else -1)


def _reads_images(folder: Path) -> bool:
    """Whether sentence-transformers wants an image processor, of a model that reads images, too."""
    kind = read_json(folder / "config.json").get("model_type")
    return kind in PROCESSOR_MAPPING_NAMES or kind in IMAGE_PROCESSOR_MAPPING_NAMES


def _by_transformers(folder: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [
        tokenizer(*pair, truncation="longest_first", max_length=LENGTH, return_tensors="pt") for pair in PAIRS
    ]
    with torch.no_grad():
        return np.concatenate([model(**row).logits.float().numpy() for row in rows])


def _compare(cell: Cell, open_scorer: Callable[[], Any], expected: np.ndarray | None) -> Cell | None:
    """The cell's outcome; None where it is another cell's: a model that cannot run without padding."""
    try:
        scorer = open_scorer()
    except ModelError as error:
        outcome = "refused" if NAMED.search(str(error)) else "failed"
        return cell._replace(outcome=outcome, detail=shorten(str(error), limit=300))
    except Exception as error:
        return cell._replace(outcome="failed", detail=f"{type(error).__name__}: {shorten(str(error))}")
    if cell.engine == "torch" and getattr(scorer, "attention", "") == "padded":
        return None
    try:
        alone = np.concatenate([scorer.score([pair]) for pair in PAIRS])
        together = scorer.score(PAIRS)
    except Exception as error:  # whatever the engine raises
        return cell._replace(outcome="failed", detail=f"{type(error).__name__}: {shorten(str(error))}")
    if expected is None:
        return cell._replace(outcome="no reference", detail="scored, but the own library fails")
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for name, logits in (("alone", alone), ("in a batch", together)):
        apart = float(np.abs(logits - expected).max())
        if not apart <= allowed:
            return cell._replace(outcome="failed", detail=f"{name} {apart:.3g} apart from the own library")
    return cell._replace(outcome="equal", detail=scorer.row_by_row and f"row by row: {scorer.row_by_row}")


def measure(quick: bool) -> dict[str, float]:
    """Counts of the sweep, of a few architectures or of all; see `figures`."""
    return figures(list(sweep(tried(quick))))


def tried(quick: bool) -> list[str]:
    """The architectures of a sweep."""
    return list(QUICK) if quick else [kind for kind in kinds() if kind not in CANNOT_BE_MADE]


def figures(cells: Sequence[Cell]) -> dict[str, float]:
    """Architectures and cells that were tried, cells by outcome, and architectures that could not be made."""
    counts = Counter(cell.outcome for cell in cells if cell.engine)
    return {
        "conformance_models": len({cell.kind for cell in cells}),
        "conformance_cells": sum(counts.values()),
        "conformance_equal": counts["equal"],
        "conformance_refused": counts["refused"],
        "conformance_no_reference": counts["no reference"],
        "conformance_row_by_row": sum(cell.outcome == "equal" and bool(cell.detail) for cell in cells),
        "conformance_failures": counts["failed"],
        "conformance_not_made": len(CANNOT_BE_MADE),
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--kinds", nargs="+", metavar="NAME", help="these architectures alone")
    flags.add_argument(
        "--all", action="store_true", help="print every cell, not only those that are not equal"
    )
    args = flags.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    cells = []
    for cell in sweep(args.kinds or tried(args.quick)):
        cells.append(cell)
        if args.all or cell.outcome != "equal" or cell.detail:
            print(*cell, sep=" | ", flush=True)
    report(figures(cells), args.json)


if __name__ == "__main__":
    main()

"""A bi-encoder that is trained on pairs, as a cross-encoder is: a pair's logit is its cosine, scaled and shifted.

On disk it is a folder of sentence-transformers whose nightrank.json holds that scale and offset. A text that is in
several pairs of a batch, such as the query of a list, is encoded once.

Where a folder has its weights in int8 alone, since full precision is four times as large, training starts from these
(`rerank_core.training.quantise.restored_weights`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from onnx import numpy_helper
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from rerank_core.errors import ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.model_folder import OWN_SETTINGS, WEIGHTS, find_onnx, local_folder, read_json
from rerank_core.inference.torch_device import input_types, open_model, vocabulary_size, without_load_report
from rerank_core.scoring.backends.bi_encoder_folder import (
    SentenceFolder,
    SingleEncoder,
    pool,
    read_logit,
    read_sentence_folder,
)
from rerank_core.text import shorten
from rerank_core.training.export import export_onnx
from rerank_core.training.losses import PairCrossEncoder
from rerank_core.training.quantise import quantise_rows, restored_weights

OUTPUT = "last_hidden_state"


class CosineLogit(nn.Module):
    """scale x cosine + offset of each pair's two texts, from the states of all texts of a batch."""

    def __init__(self, pooling: str, *, scale: float, offset: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.line = nn.Linear(1, 1)
        with torch.no_grad():
            self.line.weight.fill_(scale)
            self.line.bias.fill_(offset)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        states = features["token_embeddings"].float()
        vectors = functional.normalize(pool(states, features["attention_mask"].float(), self.pooling), dim=1)
        cosines = (vectors[features["query_of"]] * vectors[features["passage_of"]]).sum(1, keepdim=True)
        features["scores"] = self.line(cosines)
        return features


class PairBiEncoder(PairCrossEncoder):
    """A bi-encoder with the interface of a cross-encoder of one logit.

    Args:
        folder: of sentence-transformers, with `logit` in its nightrank.json.
        max_length: tokens of a text, prompt and special tokens included.

    Raises:
        ModelError: the folder's pooling is not supported, or it has neither weights nor an int8 file of them.
    """

    def __init__(self, folder: Path, *, max_length: int) -> None:
        logit = read_logit(folder)
        assert logit, "its caller has looked"
        settings = read_sentence_folder(folder)
        with _with_weights(folder) as complete, without_load_report():
            try:  # sentence-transformers would fill weights that are missing with random numbers
                open_model(transformers.AutoModel, complete, precision="fp32", optional=("pooler.",))
            except ModelError as error:
                raise ModelError(str(error).replace(str(complete), str(folder))) from None
            encoder = Transformer(str(complete), max_seq_length=max_length)
        CrossEncoder.__init__(
            self,
            modules=[encoder, CosineLogit(settings.pooling, scale=logit.scale, offset=logit.offset)],
            activation_fn=nn.Sigmoid(),
        )
        self.folder, self.settings = folder, settings

    @property
    def num_labels(self) -> int:
        """Logits of a pair; an encoder's config.json may have any number."""
        return 1

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """A batch of pairs: the rows of its texts, each once, and for each pair the numbers of its two rows.

        Args:
            inputs: (query side, passage side), or ("", (query side, passage side)).
            prompt: ignored: the folder's prompts are part of every row.
        """
        if not inputs:
            return {}
        own: SentenceFolder = self.settings
        pairs = [pair if isinstance(pair[1], str) else pair[1] for pair in inputs]
        sides = [(own.query + query, own.passage + passage) for query, passage in pairs]
        place = {text: n for n, text in enumerate(dict.fromkeys(text for side in sides for text in side))}
        rows = [row for row, _ in self.encoder().encode(list(place))]
        arrays = padded(
            rows, pad_id=self.config.pad_token_id or 0, dtypes=input_types(self.model, self.tokenizer)
        )
        features: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for name, of in zip(("query_of", "passage_of"), zip(*sides, strict=True), strict=True):
            features[name] = torch.tensor([place[text] for text in of])
        return features | {"modality": "text"}

    def make_encoder(self, tokenizer: Tokenizer) -> SingleEncoder:
        """An encoder of single texts by a tokenizer without truncation and padding."""
        return SingleEncoder(
            tokenizer,
            max_length=self.max_seq_length,
            vocabulary=vocabulary_size(self.model),
            lower=self.settings.lower,
            side=self.tokenizer.truncation_side,
        )

    def save_pretrained(self, path: str, *_: Any, **__: Any) -> None:
        """Write a folder of sentence-transformers, and the scale and offset of the logit."""
        encoder, cosine = self[0], self[1]
        width = encoder.get_embedding_dimension()
        prompts = {"query": self.settings.query, "document": self.settings.passage}
        SentenceTransformer(
            modules=[encoder, Pooling(width, cosine.pooling), Normalize()], prompts=prompts, device="cpu"
        ).save_pretrained(path, create_model_card=False)
        if self.settings.lower:
            module = Path(path) / "sentence_bert_config.json"
            kept = read_json(module) | {"do_lower_case": True}  # sentence-transformers writes it no longer
            module.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        logit = {"scale": cosine.line.weight.item(), "offset": cosine.line.bias.item()}
        (Path(path) / OWN_SETTINGS).write_text(json.dumps({"logit": logit}) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _with_weights(folder: Path) -> Iterator[Path]:
    """The folder, or a temporary copy with weights that are restored from its int8 file.

    Raises:
        ModelError: it has neither.
    """
    if any(folder.glob(WEIGHTS)):
        yield folder
        return
    path = find_onnx(folder)
    try:
        weights = restored_weights(path)
    except Exception as error:  # protobuf's own classes share no base but Exception
        raise ModelError(f"{path} cannot be read ({shorten(str(error))}); copy it again") from error
    if not weights:
        raise ModelError(f"{folder} has no {WEIGHTS}, and {path} no int8 weights to restore them from")
    with tempfile.TemporaryDirectory() as copy:
        for file in filter(Path.is_file, folder.iterdir()):
            shutil.copy(file, copy)
        tensors = {name: torch.from_numpy(values.copy()) for name, values in weights.items()}
        save_file(tensors, Path(copy) / "model.safetensors", metadata={"format": "pt"})
        yield Path(copy)


class _States(nn.Module):
    """A transformers model that takes ids and mask by position and returns its last states only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids, attention_mask).last_hidden_state
        return states


def export(folder: Path, fp32: Path, int8: Path) -> None:
    """Write a folder's encoder as ONNX in fp32 and int8: ids and mask in, its last states out."""
    # Of the implementations of attention, the exporter can trace eager for every architecture.
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    sample = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about what a trace may miss: logits are compared
        export_onnx(_States(model), fp32, sample=sample, output=OUTPUT)
    _name_weights(fp32, model.state_dict())
    quantise_rows(fp32, int8)


def _name_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Give the weights of products the names that they have in torch; the exporter numbers them.

    Of equal weights, such as biases of 0, the exporter keeps one: the others are added, so that all can be restored.
    """
    model = onnx.load(str(path))
    names = {t.name: t.name.removeprefix("model.") for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in names:
            names[node.input[1]] = ".".join(node.name.strip("/").split("/")[1:-1]) + ".weight"
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for name in weights.keys() - set(names.values()):
        if weights[name].is_floating_point() and not name.startswith("pooler."):
            model.graph.initializer.append(numpy_helper.from_array(weights[name].float().numpy(), name))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load(model: Path | str, *, max_length: int) -> PairBiEncoder:
    """A bi-encoder of a folder, or of a name on the Hugging Face Hub."""
    return PairBiEncoder(local_folder(model), max_length=max_length)

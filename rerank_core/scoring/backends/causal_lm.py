"""Generative rerankers on PyTorch: Qwen3-Reranker, and others that answer a question about a pair with one word.

The input is the folder's chat template if it shows a query and a document (`rerank_core.inference.chat_template`), else
the template of Qwen3-Reranker's model card, token for token. One forward pass reads it, and the logit is that of "yes"
minus that of "no" at the last token, or of the tokens that a LogitScore module of sentence-transformers names: its
sigmoid is the card's softmax over the two. The language model's head is applied to the last token and to these two
words only, in float32; its whole output would be [rows, tokens, 150,000], and in bf16 it would have many ties. Rows are
padded on the right and need no mask, since no token attends to a later one.

Each pair's text is tokenised as a whole, as on the card; that costs little beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from transformers import AutoModelForCausalLM

from rerank_core.errors import ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.chat_template import ChatEncoder, structural_ids
from rerank_core.inference.encoding import Row, few_at_a_time, unlimited
from rerank_core.inference.generative_folder import read_questions
from rerank_core.inference.model_folder import check_max_length
from rerank_core.inference.torch_device import (
    CHUNK,
    MAX_TOKENS,
    choose_device,
    open_model,
    to_device,
    vocabulary_size,
    within_memory,
)
from rerank_core.scoring.batched import BatchedScorer, Encoder
from rerank_core.text import fingerprint, shorten

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
QUERY, DOCUMENT = "\n<Query>: ", "\n<Document>: "
# Settings by which a language model's logits are more than its head's matrix times the last hidden state.
_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class _Body(NamedTuple):
    """A pair's tokens between prefix and suffix, uncut."""

    ids: np.ndarray  # int32 [tokens]
    query: np.ndarray  # bool [tokens]: of the query's text
    passage: np.ndarray  # bool [tokens]: of the passage's text


class TemplateEncoder:
    """Turns (query side, passage side) pairs into rows of the template. Safe to share between threads.

    The passage is cut to what max_length leaves, then the query; the template never is. Text that spells a special
    token of the template becomes a token without meaning.

    Args:
        tokenizer: without truncation and padding; it must not be changed afterwards.
        max_length: longest row in tokens, the template included.
        instruction: when a passage is relevant to a query.
        vocabulary: as of `rerank_core.inference.encoding.PairEncoder`.

    Raises:
        ValueError: a max_length that leaves no room for two texts.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_length: int, instruction: str = INSTRUCTION, vocabulary: int = 0
    ) -> None:
        self._tokenizer, self._head = tokenizer, f"<Instruct>: {instruction}{QUERY}"
        self._before, self._after = (self._ids(text) for text in (PREFIX, SUFFIX))
        self._room = max_length - len(self._before) - len(self._after)
        labels = len(self._ids(self._head + DOCUMENT))
        if self._room < labels + 2:
            size = len(self._before) + len(self._after) + labels
            raise ValueError(
                f"max_length is {max_length}; two texts and a template of {size} tokens need more"
            )
        own = np.concatenate([self._before, self._after])
        self._special, self._replacement = structural_ids(tokenizer, own, vocabulary=vocabulary)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """A row for each pair, in order, none longer than max_length."""
        rows = []
        for body in self._bodies(pairs):
            remaining = _cut(body, self._room)
            ids = np.concatenate([self._before, body.ids[remaining], self._after])
            rows.append(Row(ids, np.zeros(len(ids), np.int8)))
        return rows

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which its row leaves out: int32, shape [len(pairs)]."""
        lengths = np.array([len(body.ids) for body in self._bodies(pairs)], np.int32)
        return np.maximum(lengths - self._room, 0, dtype=np.int32)

    def _bodies(self, pairs: Sequence[tuple[str, str]]) -> list[_Body]:
        texts = [f"{self._head}{query}{DOCUMENT}{passage}" for query, passage in pairs]
        # encode_batch, not encode_batch_fast, which leaves out the offsets.
        encodings = few_at_a_time(
            lambda batch: self._tokenizer.encode_batch(batch, add_special_tokens=False), texts
        )
        return [self._body(encoding, query) for encoding, (query, _) in zip(encodings, pairs, strict=True)]

    def _body(self, encoding: Encoding, query: str) -> _Body:
        ids = np.array(encoding.ids, np.int32)
        ids = np.where(np.isin(ids, self._special), self._replacement, ids).astype(np.int32)
        # A token belongs to the text that it ends in, so that no token with a part of the template is cut.
        ends = np.array([end for _, end in encoding.offsets], np.int64)
        first, last = len(self._head), len(self._head) + len(query)
        return _Body(ids, (ends > first) & (ends <= last), ends > last + len(DOCUMENT))

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def _cut(body: _Body, room: int) -> np.ndarray:
    """Indices of the remaining tokens: the passage is cut from its end, then the query."""
    stays = np.ones(len(body.ids), bool)
    for part in (body.passage, body.query):
        beyond = stays.sum() - room
        if beyond > 0:
            stays[np.flatnonzero(part)[-beyond:]] = False
    return np.flatnonzero(stays)


class CausalLMScorer(BatchedScorer):
    """A generative reranker in PyTorch. Safe to share between threads.

    Attributes: `device`.

    Args:
        model: a folder, or a name on the Hugging Face Hub.
        max_length: longest input in tokens, the template's included (about 90 of them with Qwen's tokenizer).
        instruction: when a passage is relevant to a query, in the folder's chat template a system message; "" is the
            folder's default prompt, or INSTRUCTION in the card's template.
        max_tokens: most tokens of a batch, padding included; 0 is MAX_TOKENS.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" or "fp16", of weights and activations; logits are float32 always.
        allow_fallback: run on the CPU if there is no GPU.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: the model cannot be used or has no tokens to answer with, or the device is unavailable.
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        max_length: int = 512,
        instruction: str = "",
        max_tokens: int = 0,
        device: str = "cpu",
        precision: str = "fp32",
        allow_fallback: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        if max_tokens < 0:
            raise ValueError(f"max_tokens is {max_tokens}; at least 0 is needed")
        self.device = choose_device(device, allow_fallback=allow_fallback)
        loaded = open_model(
            AutoModelForCausalLM, model, precision=precision, trust_remote_code=trust_remote_code
        )
        tokenizer = unlimited(loaded.tokenizer.backend_tokenizer)
        known = vocabulary_size(loaded.model)
        read = read_questions(
            loaded.folder, loaded.config, tokenizer, vocabulary=known, instruction=instruction
        )
        encoder: TemplateEncoder | ChatEncoder
        if read.template:
            side = loaded.tokenizer.truncation_side
            encoder = ChatEncoder(
                tokenizer, read.template, max_length=max_length, side=side, vocabulary=known
            )
        else:
            instruction = instruction or INSTRUCTION
            encoder = TemplateEncoder(
                tokenizer, max_length=max_length, instruction=instruction, vocabulary=known
            )
        check_max_length(max_length, loaded.config, folder=loaded.folder)
        _check_head(loaded.model, loaded.folder)
        self._head = _answers(loaded.model, read.answers).to(self.device)
        self._body = loaded.model.base_model.to(self.device)
        settings = (precision, self.device, str(max_length), instruction, *read.identity)
        super().__init__(
            encoder,
            fingerprint=fingerprint("torch causal lm", *settings, *loaded.digests)[:32],
            max_tokens=max_tokens or MAX_TOKENS[self.device],
            reads_tags=loaded.reads_tags,
            chunk=CHUNK[self.device],
            precision=precision,
        )
        self._probe(loaded.folder, encoder)

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        return within_memory(lambda: self._logits(rows))

    def _probe(self, folder: Path, encoder: Encoder) -> None:
        try:
            self.run(encoder.encode([("a", "b"), ("a", "b c d")]))
        except Exception as error:
            raise ModelError(
                f"the model in {folder} fails on two short inputs ({shorten(str(error))}); copy its weights, "
                "config.json and tokenizer from one model"
            ) from error

    def _logits(self, rows: Sequence[Row]) -> np.ndarray:
        # Any id will do as padding: no token to the left attends to it.
        arrays = padded(rows, pad_id=0, dtypes={"input_ids": np.int64, "attention_mask": np.int64})
        last = to_device(np.array([len(row.ids) - 1 for row in rows], np.int64), self.device)
        hidden = self._body(
            input_ids=to_device(arrays["input_ids"], self.device), use_cache=False
        ).last_hidden_state
        ends = hidden[torch.arange(len(rows), device=hidden.device), last].float()
        yes, *no = self._head(ends).T
        return np.asarray((yes - no[0] if no else yes).cpu().numpy(), np.float32)


def _check_head(model: Any, folder: Path) -> None:
    """Refuse a model whose logits are more than its head's output.

    Raises:
        ModelError: naming the setting.
    """
    for name in _SCALED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise ModelError(
                f"config.json in {folder} has {name}, which changes logits in a way that is not supported; use a "
                "model of the Qwen or Llama architecture"
            )


def _answers(model: Any, ids: Sequence[int]) -> Any:
    """The model's head for the tokens of these ids alone, in float32."""
    whole = model.get_output_embeddings()
    head = torch.nn.Linear(
        whole.in_features, len(ids), bias=whole.bias is not None, device=whole.weight.device
    )
    with torch.no_grad():
        head.weight.copy_(whole.weight[list(ids)])
        if whole.bias is not None:
            head.bias.copy_(whole.bias[list(ids)])
    return head

"""What a generative reranker's folder says of its question and its answers, as sentence-transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from rerank_core.errors import ModelError
from rerank_core.inference.chat_template import ChatTemplate
from rerank_core.inference.cross_encoder_folder import (
    SETTINGS,
    check_activation,
    check_modules,
    check_vocabulary,
    default_prompt,
    lower_case,
    read_chat,
    read_module,
)
from rerank_core.inference.model_folder import read_json, read_modules


class Questions(NamedTuple):
    """How a generative reranker is asked about a pair, and with which tokens it answers."""

    template: ChatTemplate | None  # None: the folder has none for pairs
    answers: tuple[
        int, ...
    ]  # the id whose logit says "relevant", and the id whose logit is subtracted, if any
    identity: list[str]  # what settings add to the model's fingerprint


def read_questions(
    folder: Path, config: dict[str, Any], tokenizer: Tokenizer, *, vocabulary: int, instruction: str = ""
) -> Questions:
    """The chat template and the answers of a generative reranker's folder.

    Args:
        folder: of the model.
        config: of its config.json.
        tokenizer: without truncation and padding; it may be changed.
        vocabulary: number of ids that the model has.
        instruction: a system message in place of the folder's default prompt; "" is the folder's.

    Raises:
        ModelError: no tokens to answer with, or a file says what is not supported.
        MissingEngine: a chat template, and transformers is not installed.
    """
    check_vocabulary(tokenizer, vocabulary, folder)
    check_activation(folder, config)
    modules = read_modules(folder)
    if not modules:
        template = read_chat(folder, config, {}, prompt=instruction, required=False)
        return Questions(template, _yes_no(tokenizer, folder), [] if template is None else [repr(template)])
    check_modules(folder, modules, ("Transformer", "LogitScore"))
    module = read_module(folder)
    if module.get("do_lower_case") is True:
        lower_case(tokenizer)
    prompt, template = instruction or default_prompt(folder), None
    if "message" in (module.get("modality_config") or {}):
        template = read_chat(folder, config, module, prompt=prompt, required=True)
    if template is None and prompt and not instruction:
        raise ModelError(
            f"{folder / SETTINGS} has a default prompt, but the folder has no chat template to put it into; set "
            "scoring.instruction"
        )
    answers = _logit_score(folder / str(modules[1].get("path")) / "config.json", vocabulary)
    identity = [repr((template, answers, module.get("do_lower_case") is True))]
    return Questions(template, answers, identity)


def _yes_no(tokenizer: Tokenizer, folder: Path) -> tuple[int, ...]:
    """Ids of the tokens "yes" and "no".

    Raises:
        ModelError: one of them is not a token.
    """
    ids = tuple(number for word in ("yes", "no") if (number := tokenizer.token_to_id(word)) is not None)
    if len(ids) < 2:
        raise ModelError(
            f'the tokenizer in {folder} has no tokens "yes" and "no", with which a generative reranker answers; '
            "use a model like Qwen3-Reranker, or name the tokens in a LogitScore module of sentence-transformers"
        )
    return ids


def _logit_score(path: Path, vocabulary: int) -> tuple[int, ...]:
    """The ids that a LogitScore module names.

    Raises:
        ModelError: they are none of the model's ids.
    """
    config = read_json(path)
    ids = [config.get("true_token_id"), config.get("false_token_id")]
    given = [number for number in ids if isinstance(number, int) and 0 <= number < vocabulary]
    if len(given) != (1 if ids[1] is None else 2):
        raise ModelError(
            f"true_token_id and false_token_id in {path} are {ids[0]!r} and {ids[1]!r}; needed are ids of the model's "
            f"vocabulary, 0 to {vocabulary - 1}"
        )
    return tuple(given)

"""What a cross-encoder's folder says of its input and its labels, beside weights and tokenizer.

The rules are those of sentence-transformers' CrossEncoder, so that a folder gives the logits that it gives there. What
would change a logit and is not supported is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, normalizers

from rerank_core.errors import ModelError
from rerank_core.inference.chat_template import ChatEncoder, ChatTemplate, parse_template, read_chat_template
from rerank_core.inference.encoding import PairEncoder, special_ids
from rerank_core.inference.label_names import relevant_label
from rerank_core.inference.model_folder import (
    OWN_SETTINGS,
    check_max_length,
    padding_id,
    read_json,
    read_modules,
)
from rerank_core.inference.tokenizer_files import read_tokenizer
from rerank_core.text import shorten

SETTINGS, MODULE = "config_sentence_transformers.json", "sentence_bert_config.json"
# Functions of a logit that keep the order; any other one is not what its score was trained to be.
_ACTIVATIONS = frozenset(
    """Identity Sigmoid Tanh Softmax LogSoftmax LogSigmoid Softplus Softsign ELU SELU CELU LeakyReLU""".split()
)
# Settings of the module that change no logit here: lengths are scoring.max_length, padding and precision our own.
_HARMLESS = {
    "processor_kwargs": {"model_max_length", "padding_side", "use_fast"},
    "tokenizer_args": {"model_max_length", "padding_side", "use_fast"},
    "config_kwargs": {"num_labels", "dtype", "torch_dtype"},
    "config_args": {"num_labels", "dtype", "torch_dtype"},
}
_TEXT_OPTIONS = frozenset({"padding", "padding_side", "max_length", "return_tensors", "logits_to_keep"})


class InputSettings(NamedTuple):
    """How a pair becomes the model's input."""

    prompt: str = ""  # before each query, or a chat's system message
    lower: bool = False  # texts are put in lower case first
    template: ChatTemplate | None = None  # of a chat, around the pair

    @property
    def identity(self) -> list[str]:
        """What the settings add to a model's fingerprint: nothing where they are the usual ones."""
        return [] if self == InputSettings() else [repr(self)]


class PairFacts(NamedTuple):
    """How a model reads pairs, and what its labels mean."""

    encoder: PairEncoder | ChatEncoder
    relevant: int  # index of the relevant one of two labels
    last_id: int  # of the ids that rows may have
    identity: list[str]  # what all this adds to the model's fingerprint


class FolderFacts(NamedTuple):
    """A model's folder without the model."""

    encoder: PairEncoder | ChatEncoder
    pad_id: int
    last_id: int  # of the ids that rows may have
    relevant: int  # index of the relevant one of two labels
    typed: bool  # whether token types tell the two sides apart; else all are 0
    reads_tags: bool
    identity: list[str]  # what settings add to the model's fingerprint


def read_folder(folder: Path, *, max_length: int) -> FolderFacts:
    """Tokenizer and settings of a model's folder, without transformers (but for a chat template).

    Raises:
        ModelError: a file is missing or broken, says what is not supported, or the model takes no input of max_length.
        MissingEngine: a chat template, and transformers is not installed.
    """
    config = read_json(folder / "config.json")
    files = read_tokenizer(folder, config)
    given = config.get("vocab_size")
    size = given if isinstance(given, int) else files.size
    pad_id = padding_id(files.tokenizer, folder, config, size=size)
    facts = read_pairs(
        folder,
        config,
        files.tokenizer,
        max_length=max_length,
        side=files.truncation_side,
        vocabulary=size,
    )
    reads_tags = read_json(folder / OWN_SETTINGS).get("reads_tags") is True
    identity = [*facts.identity, *files.changes, *([] if files.typed else ["no types"])]
    return FolderFacts(
        facts.encoder, pad_id, facts.last_id, facts.relevant, files.typed, reads_tags, identity
    )


def read_pairs(
    folder: Path, config: dict[str, Any], tokenizer: Tokenizer, *, max_length: int, side: str, vocabulary: int
) -> PairFacts:
    """How the model of a folder reads pairs.

    Args:
        folder: of the model.
        config: of its config.json.
        tokenizer: without truncation and padding; it may be changed.
        max_length: longest row in tokens.
        side: where a text that is too long is cut, "right" or "left".
        vocabulary: number of ids that the model has.

    Raises:
        ModelError: a file says what is not supported, or the model takes no input of max_length.
        ValueError: a max_length that leaves no room for two texts.
    """
    last_id = check_vocabulary(tokenizer, vocabulary, folder)
    settings = read_input_settings(folder, config)
    if settings.lower:
        lower_case(tokenizer)
    spelled = tokenizer.encode(settings.prompt, add_special_tokens=False).ids if not settings.template else []
    if set(spelled) & set(special_ids(tokenizer).ids.tolist()):
        raise ModelError(
            f"the default prompt in {folder / SETTINGS} spells a special token, which is not supported; use another "
            "model"
        )
    encoder: PairEncoder | ChatEncoder
    if settings.template:
        encoder = ChatEncoder(
            tokenizer, settings.template, max_length=max_length, side=side, vocabulary=vocabulary
        )
    else:
        encoder = PairEncoder(
            tokenizer, max_length=max_length, prompt=settings.prompt, side=side, vocabulary=vocabulary
        )
    check_max_length(max_length, config, folder=folder)
    relevant = relevant_label(config, folder)
    identity = [
        *settings.identity,
        *([] if relevant == 1 else [f"label {relevant}"]),
        *([] if side == "right" else [f"cut {side}"]),
    ]
    return PairFacts(encoder, relevant, last_id, identity)


def check_vocabulary(tokenizer: Tokenizer, size: int, folder: Path) -> int:
    """The last of the ids that rows may have; added tokens beyond the model's vocabulary are never among them.

    Args:
        tokenizer: of the model.
        size: number of ids that the model has.
        folder: of the model, for the message.

    Raises:
        ModelError: a tokenizer with ids that the model does not have, which would crash a GPU's process.
    """
    last = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
    own = max((*tokenizer.encode("a", "b").ids, last))
    if own >= size:
        raise ModelError(
            f"the tokenizer in {folder} has ids up to {own}, its model has {size} of them; copy both from one model"
        )
    return max(number for number in tokenizer.get_vocab().values() if number < size)


def lower_case(tokenizer: Tokenizer) -> None:
    """Put texts in lower case before anything else, as sentence-transformers does; the tokenizer is changed."""
    first, rest = normalizers.Lowercase(), tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([first] if rest is None else [first, rest])


def read_input_settings(folder: Path, config: dict[str, Any]) -> InputSettings:
    """Prompt, case and chat template of a sequence classifier's folder.

    Raises:
        ModelError: a file says what is not supported.
        MissingEngine: a chat template, and transformers is not installed.
    """
    modules = read_modules(folder)
    check_activation(folder, config)
    if modules:
        check_modules(folder, modules, ("Transformer",))
    # Of a folder that is not its own cross-encoder's, sentence-transformers reads none of its other files.
    if not modules or read_json(folder / SETTINGS).get("model_type") != "CrossEncoder":
        return InputSettings(template=read_chat(folder, config, {}, prompt="", required=True))
    module = read_module(folder)
    prompt = default_prompt(folder)
    template = None
    if "message" in (module.get("modality_config") or {}):
        template = read_chat(folder, config, module, prompt=prompt, required=True)
    return InputSettings(prompt, module.get("do_lower_case") is True, template)


def read_chat(
    folder: Path, config: dict[str, Any], module: dict[str, Any], *, prompt: str, required: bool
) -> ChatTemplate | None:
    """The folder's chat template; None if it has none, or one for no pairs that is not `required`.

    Raises:
        ModelError: a required one does not show a query and a document.
    """
    text = read_chat_template(folder)
    if not text:
        return None
    form = str(((module.get("modality_config") or {}).get("message") or {}).get("format") or "")
    template = parse_template(
        text,
        folder,
        prompt=prompt,
        model_type=str(config.get("model_type")),
        form="" if form == "auto" else form,
        options=(module.get("processing_kwargs") or {}).get("chat_template") or {},
    )
    if template is None and required:
        raise ModelError(
            f"the chat template in {folder} does not show messages of the roles query and document, which "
            "sentence-transformers makes of a pair; write one that does to chat_template.jinja in this folder, or "
            "remove the template if the model was trained without one"
        )
    return template


def check_modules(folder: Path, modules: list[dict[str, Any]], known: tuple[str, ...]) -> None:
    """Refuse a folder of other modules than the known ones, in their order.

    Raises:
        ModelError: naming the modules and the backend that may take them.
    """
    kinds = tuple(str(module.get("type")).rpartition(".")[2] for module in modules)
    if kinds == known and not modules[0].get("path"):
        return
    remedy = {"LogitScore": "causal_lm", "Pooling": "bi_encoder"}
    backend = next(
        (f"scoring.backend = {remedy[kind]!r}" for kind in kinds if kind in remedy), "another model"
    )
    raise ModelError(
        f"{folder / 'modules.json'} has the modules {', '.join(kinds)}, supported here is {', '.join(known)} in the "
        f"folder itself; use {backend}"
    )


def default_prompt(folder: Path) -> str:
    """The prompt that sentence-transformers puts before each query by default; "" for none.

    Raises:
        ModelError: default_prompt_name is the name of no prompt.
    """
    settings = read_json(folder / SETTINGS)
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or str(name) not in prompts:
        raise ModelError(
            f"default_prompt_name in {folder / SETTINGS} is {name!r}, which is not one of its prompts: "
            f"{', '.join(map(str, prompts)) or '(none)'}; correct it, or set it to null"
        )
    return str(prompts[str(name)] or "")


def read_module(folder: Path) -> dict[str, Any]:
    """Settings of the Transformer module.

    Raises:
        ModelError: some that change a logit in a way that is not supported.
    """
    module = read_json(folder / MODULE)
    for name in (*_HARMLESS, "processing_kwargs", "modality_config"):
        if not isinstance(module.get(name) or {}, dict):
            raise ModelError(f"{name} in {folder / MODULE} is no object; copy the folder again")
    foreign = [
        f"{group}.{name}"
        for group, harmless in _HARMLESS.items()
        for name in set(module.get(group) or {}) - harmless
    ]
    processing = module.get("processing_kwargs") or {}
    for group in ("text", "common"):
        options = processing.get(group) or {}
        foreign += [f"processing_kwargs.{group}.{name}" for name in set(options) - _TEXT_OPTIONS]
        if options.get("truncation") in (True, "longest_first"):
            foreign.remove(f"processing_kwargs.{group}.truncation")
    if module.get("tokenizer_name_or_path"):
        foreign.append("tokenizer_name_or_path")
    if foreign:
        raise ModelError(
            f"{folder / MODULE} sets {', '.join(sorted(foreign))}, which is not supported; use another model"
        )
    return module


def check_activation(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a function of the logit that changes the order.

    Raises:
        ModelError: naming the function.
    """
    saved = config.get("sentence_transformers")
    named = {
        SETTINGS: read_json(folder / SETTINGS).get("activation_fn"),
        "config.json": (saved.get("activation_fn") if isinstance(saved, dict) else None)
        or config.get("sbert_ce_default_activation_function"),
    }
    for file, name in named.items():
        # sentence-transformers takes torch's functions alone, and the usual one in place of any other.
        if (
            isinstance(name, str)
            and name.startswith("torch.")
            and name.rpartition(".")[2] not in _ACTIVATIONS
        ):
            raise ModelError(
                f"activation_fn in {folder / file} is {shorten(name)}, which does not keep the order of the logits; "
                "use a model that was trained without it"
            )

"""A model's tokenizer as transformers makes it of tokenizer.json and tokenizer_config.json, without transformers.

transformers reads some settings of tokenizer_config.json over those of tokenizer.json: BERT's classes build their
normaliser anew from them, other classes their pre-tokeniser, and tokens are added. Where the two files agree, as in
every folder that transformers wrote, nothing changes. BERT's settings and added tokens are applied here; a disagreement
about any other setting is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from rerank_core.errors import ModelError
from rerank_core.inference.encoding import open_tokenizer, unlimited
from rerank_core.inference.model_folder import read_json
from rerank_core.text import shorten

# Classes that are BERT's, or build their normaliser as BERT's do.
_BERT_CLASSES = frozenset(
    """BertTokenizer ConvBertTokenizer DistilBertTokenizer ElectraTokenizer FunnelTokenizer LayoutLMTokenizer
    MPNetTokenizer MobileBertTokenizer SqueezeBertTokenizer""".split()
)
# What other classes read from tokenizer_config.json, with their defaults.
_READ: dict[str, dict[str, bool]] = {
    "AlbertTokenizer": {"do_lower_case": True, "keep_accents": False},
    "BartTokenizer": {"add_prefix_space": False},
    "CamembertTokenizer": {"add_prefix_space": True},
    "DebertaTokenizer": {"add_prefix_space": False},
    "DebertaV2Tokenizer": {"do_lower_case": False, "split_by_punct": False, "add_prefix_space": True},
    "GPT2Tokenizer": {"add_prefix_space": False},
    "LongformerTokenizer": {"add_prefix_space": False},
    "RemBertTokenizer": {"do_lower_case": False, "keep_accents": False},
    "RobertaTokenizer": {"add_prefix_space": False},
    "XLMRobertaTokenizer": {"add_prefix_space": True},
    "XLNetTokenizer": {"do_lower_case": False, "keep_accents": False},
}
# What a class splits words with.
_MODELS = {
    **dict.fromkeys((name for name in _READ if "add_prefix_space" in _READ[name]), "BPE"),
    **dict.fromkeys(
        """AlbertTokenizer CamembertTokenizer DebertaV2Tokenizer RemBertTokenizer XLMRobertaTokenizer
        XLNetTokenizer""".split(),
        "Unigram",
    ),
}
# The class where no file names one.
_CLASS_OF_TYPE = {
    **dict.fromkeys(
        """bert convbert distilbert electra ernie layoutlm megatron-bert mobilebert nezha nomic_bert qdqbert
        squeezebert""".split(),
        "BertTokenizer",
    ),
    **dict.fromkeys(
        "bart data2vec-text ibert lilt longformer roberta roberta-prelayernorm".split(), "RobertaTokenizer"
    ),
    **dict.fromkeys("gte xlm-roberta xmod".split(), "XLMRobertaTokenizer"),
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "funnel": "FunnelTokenizer",
    "mpnet": "MPNetTokenizer",
    "rembert": "RemBertTokenizer",
    "xlnet": "XLNetTokenizer",
}
# Classes that tell a model which side a token is of, where model_input_names does not say.
_TYPED = _BERT_CLASSES - {"DistilBertTokenizer", "FunnelTokenizer", "MPNetTokenizer"} | {
    *("DebertaTokenizer", "DebertaV2Tokenizer", "MarkupLMTokenizer")
}
# Types whose class in tokenizer_config.json transformers overrules: tokenizer.json counts as it is.
_AS_IT_IS = frozenset({"modernbert", "modernbert-decoder"})
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerFiles(NamedTuple):
    """A tokenizer, and what its files say beside it."""

    tokenizer: Tokenizer  # without truncation and padding
    truncation_side: str  # "right" or "left", where a text is cut
    size: int  # of its vocabulary, by tokenizer.json alone
    typed: bool  # whether the model's input tells the two sides apart, if the model does
    changes: list[str]  # what tokenizer_config.json changes in tokenizer.json


def read_tokenizer(folder: Path, config: dict[str, Any]) -> TokenizerFiles:
    """The tokenizer of a model's folder.

    Args:
        folder: of the model.
        config: of its config.json.

    Raises:
        ModelError: a file is missing or broken, or the two files disagree in a way that is not supported.
    """
    tokenizer = open_tokenizer(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    side = settings.get("truncation_side") or (tokenizer.truncation or {}).get("direction") or "right"
    size = max(unlimited(tokenizer).get_vocab().values(), default=0) + 1
    name, changes = _class_of(tokenizer, settings, config, folder), []
    if name in _BERT_CLASSES:
        changes += _as_bert(tokenizer, settings)
    else:
        _check_agreement(tokenizer, settings, _READ.get(name, {}), folder=folder)
    changes += _add_tokens(tokenizer, _default_tokens(name) | settings, folder)
    if name in _BERT_CLASSES - {"FunnelTokenizer", "MPNetTokenizer"}:
        changes += _berts_pairs(tokenizer, _default_tokens(name) | settings)
    if settings.get("split_special_tokens") is True:
        tokenizer.encode_special_tokens = True
        changes.append("split_special_tokens")
    if str(side).lower() not in ("left", "right"):
        raise ModelError(
            f"truncation_side in {folder / 'tokenizer_config.json'} is {side!r}; it is left or right"
        )
    inputs = settings.get("model_input_names")
    typed = "token_type_ids" in inputs if isinstance(inputs, list) else name in _TYPED
    return TokenizerFiles(tokenizer, str(side).lower(), size, typed, changes)


def _class_of(tokenizer: Tokenizer, settings: dict[str, Any], config: dict[str, Any], folder: Path) -> str:
    """The tokenizer's class in transformers, without "Fast"; "" if tokenizer.json counts as it is.

    Raises:
        ModelError: tokenizer.json is of another kind than the class that a file names.
    """
    model_type, kind = str(config.get("model_type")), type(tokenizer.model).__name__
    if model_type in _AS_IT_IS:
        return ""
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    name = str(named).removesuffix("Fast") if named else _CLASS_OF_TYPE.get(model_type, "")
    wanted = "WordPiece" if name in _BERT_CLASSES else _MODELS.get(name, kind)
    if kind == wanted:
        return name
    if not named:
        return ""
    raise ModelError(
        f"tokenizer_class in {folder / 'tokenizer_config.json'} is {named}, which is a {wanted}, but tokenizer.json is "
        f"a {kind}; copy both files from one model"
    )


def _as_bert(tokenizer: Tokenizer, settings: dict[str, Any]) -> list[str]:
    """Give the tokenizer the normaliser and the pre-tokeniser that BERT's classes build."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    changes = []
    if not _same(tokenizer.normalizer, normalizer):
        tokenizer.normalizer = normalizer
        changes.append(f"normaliser {normalizer.__getstate__()!r}")
    if not _same(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer()):
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        changes.append("BertPreTokenizer")
    return changes


def _berts_pairs(tokenizer: Tokenizer, settings: dict[str, Any]) -> list[str]:
    """Give the tokenizer the special tokens that BERT's classes put around a pair."""
    first = tokenizer.encode("a", "b")
    cls, sep = (text_of(settings.get(name)) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((cls, sep))],
    )
    then = tokenizer.encode("a", "b")
    return [] if (first.ids, first.type_ids) == (then.ids, then.type_ids) else [f"pairs {cls} {sep}"]


def _same(one: Any, other: Any) -> bool:
    return _steps(one) == _steps(other)


def _check_agreement(
    tokenizer: Tokenizer, settings: dict[str, Any], known: dict[str, bool], *, folder: Path
) -> None:
    """Refuse a setting that transformers reads from tokenizer_config.json, and tokenizer.json does not follow."""
    steps = [*_steps(tokenizer.normalizer), *_steps(tokenizer.pre_tokenizer)]
    kinds = {step.get("type") for step in steps}
    prefix = [_adds_prefix(step) for step in steps if step.get("type") in ("ByteLevel", "Metaspace")]
    done = {
        "do_lower_case": "Lowercase" in kinds or any(step.get("lowercase") is True for step in steps),
        "keep_accents": "StripAccents" not in kinds,
        "split_by_punct": "Punctuation" in kinds,
        "add_prefix_space": any(prefix),
    }
    for field, default in known.items():
        wanted = settings.get(field, default)
        if not isinstance(wanted, bool) or (field == "add_prefix_space" and not prefix):
            continue
        if wanted != done[field]:
            said = f"is {json.dumps(wanted)}" + ("" if field in settings else " by default")
            raise ModelError(
                f"{field} in {folder / 'tokenizer_config.json'} {said}, but tokenizer.json does not follow it; save "
                f"both anew with transformers: AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
            )


def _steps(part: Any) -> list[dict[str, Any]]:
    """The settings of each step of a normaliser or pre-tokeniser."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    inner = state.get("normalizers") or state.get("pretokenizers")
    return inner if isinstance(inner, list) else [state]


def _adds_prefix(step: dict[str, Any]) -> bool:
    scheme = step.get("prepend_scheme")
    return scheme == "always" if scheme is not None else step.get("add_prefix_space") is not False


def _default_tokens(name: str) -> dict[str, Any]:
    """Special tokens of a class, where no file names others."""
    if name in _BERT_CLASSES - {"FunnelTokenizer", "MPNetTokenizer"} or name == "DebertaV2Tokenizer":
        return dict(zip(NAMED[2:], ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
    if name.removesuffix("Tokenizer") in ("Bart", "Camembert", "Longformer", "Roberta", "XLMRoberta"):
        return dict(zip(NAMED, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
    return {}


def _add_tokens(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> list[str]:
    """Add the tokens that the other files have beside tokenizer.json."""
    own = tokenizer.get_added_tokens_decoder().values()
    names, known = {token.content for token in own}, {repr(token) for token in own}
    try:
        tokens = [token for token in _given(settings, names, folder) if repr(token) not in known]
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the added tokens in {folder / 'tokenizer_config.json'} are not tokens ({error}); copy the folder again"
        ) from None
    names |= {token.content for token in tokens}
    for name in _special(settings, folder):
        if name not in names:
            names.add(name)
            tokens.append(AddedToken(name, special=True))
    tokenizer.add_tokens(tokens)
    for number, fields in (settings.get("added_tokens_decoder") or {}).items():
        name, actual = text_of(fields), tokenizer.token_to_id(text_of(fields))
        if actual != int(number):
            raise ModelError(
                f"added_tokens_decoder in {folder / 'tokenizer_config.json'} gives {shorten(name)} the id {number}, by "
                f"tokenizer.json it gets {actual}; copy both files from one model"
            )
    return [repr(token) for token in tokens]


def _given(settings: dict[str, Any], names: Collection[str], folder: Path) -> list[AddedToken]:
    """Tokens with their properties, by their ids; added_tokens.json is what older versions wrote."""
    if "added_tokens_decoder" in settings:
        by_id = sorted(settings["added_tokens_decoder"].items(), key=lambda item: int(item[0]))
        return [AddedToken(**fields) for _, fields in by_id]
    special = set(_special(settings, folder))
    older = sorted(read_json(folder / "added_tokens.json").items(), key=lambda item: int(item[1]))
    return [
        AddedToken(name, normalized=name not in special, special=name in special)
        for name, _ in older
        if name not in names
    ]


def _special(settings: dict[str, Any], folder: Path) -> list[str]:
    """Special tokens by their names and in lists."""
    merged = settings
    if "added_tokens_decoder" not in settings:
        merged = settings | read_json(folder / "special_tokens_map.json")
    extra = merged.get("extra_special_tokens") or merged.get("additional_special_tokens") or []
    values = [merged.get(name) for name in NAMED]
    values += list(extra.values()) if isinstance(extra, dict) else list(extra)
    return list(dict.fromkeys(content for value in values if (content := text_of(value))))


def text_of(token: Any) -> str:
    """A token's text: tokenizer_config.json has texts, or objects as older versions wrote them; "" for none."""
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else ""

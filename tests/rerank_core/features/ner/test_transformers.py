"""Tiny random models, saved as transformers saves them; its own pipeline is what ours is compared with."""

import json
import pickle
import random
import shutil

import huggingface_hub
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
transformers = pytest.importorskip(
    "transformers", reason="needs transformers: pip install 'nightrank[train]'"
)

from tokenizers import pre_tokenizers

from rerank_core.errors import ModelError
from rerank_core.features.ner import transformers as module
from rerank_core.features.ner.onnx import OnnxRecogniser
from rerank_core.features.ner.tokens import read_tag
from rerank_core.features.ner.transformers import TransformersRecogniser

SCHEMES = {
    "bio": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-ORG"],
    "plain": ["O", "PERSON", "GPE", "ORG", "DATE"],
}
LETTERS = "abcdeABCDE"
PIECES = [*LETTERS, *"##a ##b ##c ##d ##e ab Cad ##ea 1 ##1 . , - ( )".split()]
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 1.0,  # so that the labels differ
}


def save(folder, tokenizer, model):
    with torch.no_grad():
        model.classifier.bias.normal_()
    tokenizer.save_pretrained(folder)
    model.eval().save_pretrained(folder)
    return folder


def labelled(scheme):
    names = dict(enumerate(SCHEMES[scheme]))
    return {"id2label": names, "label2id": {name: i for i, name in names.items()}}


def make_bert(folder, *, scheme="bio", seed=0, lower=False, positions=64):
    vocab = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *dict.fromkeys(p.lower() if lower else p for p in PIECES),
    ]
    tokenizer = transformers.BertTokenizerFast(
        vocab={token: i for i, token in enumerate(vocab)}, do_lower_case=lower, model_max_length=positions
    )
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(vocab), max_position_embeddings=positions, **SIZES, **labelled(scheme)
    )
    return save(folder, tokenizer, transformers.BertForTokenClassification(config))


def make_roberta(folder, *, scheme="bio", seed=0, positions=66):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [*(("Ġ", letter) for letter in LETTERS), ("b", "c"), ("d", "e")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = transformers.RobertaTokenizerFast(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=positions - 2
    )
    torch.manual_seed(seed)
    config = transformers.RobertaConfig(
        vocab_size=len(tokens),
        max_position_embeddings=positions,
        pad_token_id=1,
        type_vocab_size=1,
        **SIZES,
        **labelled(scheme),
    )
    return save(folder, tokenizer, transformers.RobertaForTokenClassification(config))


def make_texts(characters, *, count=30, longest=40, seed=0):
    chance = random.Random(seed)
    texts = ("".join(chance.choices(characters, k=chance.randint(1, longest))) for _ in range(count))
    return [text for text in texts if text.strip()]


MIXED = [*LETTERS, *LETTERS, *"     1.,()-\n砂"]
# For RoBERTa, where the pipeline guesses: it parts words at spaces alone, ours also between letters, digits and
# marks, as the tokenizer does; and it takes for a word each space that is a token, and a letter's second byte.
WORDS = [*LETTERS, *"   "]


def piped(pipe, text):
    """What transformers finds, with the types and the trimming that are ours by design."""
    found = []
    for entity in pipe(text):
        start, end = int(entity["start"]), int(entity["end"])
        start += len(text[start:end]) - len(text[start:end].lstrip())
        label = read_tag(entity["entity_group"]).label
        if label and any(char.isalnum() for char in text[start:end]):
            found.append((text[start:end], label, start, end))
    return tuple(found)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize(
    ("make", "characters"),
    [(make_bert, MIXED), (lambda *a, **k: make_bert(*a, lower=True, **k), MIXED), (make_roberta, WORDS)],
    ids=["bert", "uncased", "roberta"],
)
def test_parity_with_the_pipeline(tmp_path, make, characters, scheme):
    total = 0
    for seed in range(2):
        folder = make(tmp_path / str(seed), scheme=scheme, seed=seed)
        pipe = transformers.pipeline(
            "token-classification", model=str(folder), aggregation_strategy="first", device="cpu"
        )
        texts = make_texts(characters, seed=seed)
        texts = [" ".join(text.split()) if characters is WORDS else text for text in texts]
        ours = TransformersRecogniser(folder).recognise([("", text) for text in texts])
        assert ours == [piped(pipe, text) for text in texts]
        total += sum(map(len, ours))
    assert total > 50


@pytest.mark.parametrize("make", [make_bert, make_roberta])
def test_the_same_alone_and_in_any_batch(tmp_path, make):
    folder = make(tmp_path / "m")
    passages = [("", text) for text in ["", *make_texts(MIXED, longest=300), " ", "Cad \ud800"]]
    together = TransformersRecogniser(folder, max_tokens=4096).recognise(passages)
    small = TransformersRecogniser(folder, max_tokens=70)
    assert [small.recognise([passage])[0] for passage in passages] == together
    assert small.recognise(passages[::-1]) == together[::-1]
    for (_, text), mentions in zip(passages, together, strict=True):
        assert all(text[m.start : m.end] == m.text for m in mentions)
    assert max(mentions[-1].end for mentions in together if mentions) > 200  # windows: 62 tokens at once


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the export
@pytest.mark.parametrize("make", [make_bert, make_roberta])
def test_parity_with_onnx(tmp_path, make):
    pytest.importorskip("onnxscript", reason="the export needs onnxscript")
    folder = make(tmp_path / "m")
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, "logits"]}
    example = (torch.tensor([[5, 6, 7], [8, 9, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    torch.onnx.export(
        model,
        example,
        str(folder / "model.onnx"),
        dynamo=False,
        input_names=names,
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
    )
    passages = [("", text) for text in make_texts(MIXED, longest=200)]
    ours = TransformersRecogniser(folder).recognise(passages)
    assert OnnxRecogniser(folder).recognise(passages) == ours
    assert sum(map(len, ours)) > 100


def test_broken_weights_name_the_passage(tmp_path):
    folder = make_bert(tmp_path / "m")
    model = transformers.BertForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"for the passage 'Cad ab'"):
        TransformersRecogniser(folder).recognise([("", "Cad ab")])


# Pickling and identity


def test_a_process_loads_a_model_once_and_pickles_without_it(tmp_path, monkeypatch):
    opened = []
    load = module._load_model
    monkeypatch.setattr(module, "_load_model", lambda folder: opened.append(folder) or load(folder))
    recogniser = TransformersRecogniser(make_bert(tmp_path / "m"))
    assert not opened
    raw = pickle.dumps(recogniser)
    assert len(raw) < 600
    passages = [("", text) for text in make_texts(MIXED, count=5)]
    copies = [pickle.loads(raw) for _ in range(2)]  # noqa: S301  our own
    assert len({repr(one.recognise(passages)) for one in [recogniser, *copies]}) == 1
    assert {one.fingerprint for one in copies} == {recogniser.fingerprint}
    assert len(opened) == 1


def test_the_fingerprint_names_what_decides_a_mention(tmp_path):
    folder = make_bert(tmp_path / "m")
    first = TransformersRecogniser(folder)
    assert len(bytes.fromhex(first.fingerprint)) == 16
    same = shutil.copytree(folder, tmp_path / "same")
    (same / "README.md").write_text("a model")
    assert TransformersRecogniser(same, max_tokens=9, device="auto").fingerprint == first.fingerprint
    prints = {first.fingerprint, TransformersRecogniser(folder, max_length=9).fingerprint}
    prints.add(TransformersRecogniser(make_bert(tmp_path / "seed", seed=1)).fingerprint)
    for name in ("tokenizer.json", "config.json"):
        (same / name).write_text((same / name).read_text() + "\n")
        prints.add(TransformersRecogniser(same).fingerprint)
    assert len(prints) == 5


def test_another_model_in_the_folder_is_refused(tmp_path):
    recogniser = TransformersRecogniser(make_bert(tmp_path / "m"))
    make_bert(tmp_path / "m", seed=1)
    with pytest.raises(ModelError, match="differ from those that this recogniser was made with"):
        recogniser.recognise([("", "Cad")])


def test_a_name_is_fetched_and_stays_at_its_commit(tmp_path, monkeypatch):
    asked = []

    def snapshot(name, *, revision, allow_patterns):
        asked.append((name, revision))
        assert "*.safetensors" in allow_patterns
        assert not any("bin" in pattern or pattern.endswith(".py") for pattern in allow_patterns)
        return str(tmp_path / "c0ffee")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    make_bert(tmp_path / "c0ffee")
    recogniser = TransformersRecogniser("someone/some-ner")
    assert recogniser.fingerprint == TransformersRecogniser(tmp_path / "c0ffee").fingerprint
    pickle.loads(pickle.dumps(recogniser)).load()  # noqa: S301  our own
    assert asked[0] == ("someone/some-ner", None)
    assert set(asked[1:]) == {("someone/some-ner", "c0ffee")}


# Models that cannot be used


def test_a_name_that_is_nowhere(monkeypatch):
    def snapshot(name, **options):
        raise OSError("no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(
        ModelError, match=r"no folder someone/typo, and .* \(no such repository\); check the name"
    ):
        TransformersRecogniser("someone/typo")


def test_weights_that_are_no_safetensors(tmp_path):
    folder = make_bert(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"no \*.safetensors in .*other formats are never opened. Save the model"
    ):
        TransformersRecogniser(folder)


def test_a_model_without_a_head_is_refused(tmp_path):
    """transformers would give it a random one."""
    folder = make_bert(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match=r"lack classifier.bias, classifier.weight: it is no token-classification"
    ):
        TransformersRecogniser(folder).load()


def test_cut_weights_are_refused(tmp_path):
    folder = make_bert(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot be loaded: .*copy the folder again"):
        TransformersRecogniser(folder).load()


def test_a_models_own_code_is_not_run(tmp_path):
    folder = make_bert(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        TransformersRecogniser(folder).load()
    assert not (tmp_path / "ran").exists()


def test_a_slow_tokenizer_is_refused(tmp_path, monkeypatch):
    class Slow:
        is_fast = False

    folder = make_bert(tmp_path / "m")
    monkeypatch.setattr(module.AutoTokenizer, "from_pretrained", lambda *args, **options: Slow())
    with pytest.raises(ModelError, match=r"is a slow one.*a tokenizer.json is needed"):
        TransformersRecogniser(folder).load()


def test_labels_that_name_nothing(tmp_path):
    folder = make_bert(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(7)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"other names: LABEL_0, .*LABEL_6\. Take a named-entity model"):
        TransformersRecogniser(folder)


@pytest.mark.parametrize("options", [{"max_length": 0}, {"max_tokens": 0}, {"device": "gpu"}])
def test_senseless_settings(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TransformersRecogniser(tmp_path, **options)

"""A whole study in a few seconds: planted data, a BERT of one layer that knows the planted words, and a study file that names both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from compress_rec.encoder import Encoder
from compress_rec.planted import STYLES, TOPICS
from compress_rec.tokens import Tokens
from compress_rec.towers import Role, Tower, Towers
from compress_rec.variant import Variant
from tests.models import HEADS, SPECIALS, small_encoder, small_tower

# users, topics × styles items, events a user; the training side of a test is built from the same figures
DATA = {"users": 120, "topics": 6, "styles": 4, "events": 6}
PLANS = """
[variants]
int8 = ["quantize_int8"]
half = [{ recipe = "factorize", method = "plain", keep = 0.5 }]
half-int8 = [{ recipe = "factorize", method = "plain", keep = 0.5 }, "quantize_int8"]
refused = ["quantize_int8", { recipe = "factorize", keep = 0.5 }]
"""
STUDY = """
title = "Tiny"
seed = 3
threads = 1
show = 2

[data]
name = "planted"
users = 120
topics = 6
styles = 4
events = 6
cold_items = 0.1

[model]
path = "{model}"

[teacher]
dimensions = 16
epochs = 4

[fit]
passes = 2
batch = 8
histories = 4
dimensions = 16
item_length = 8
text_length = 24
history = 3

[lesson]
histories = 16

[baselines]
tables = ["popularity", "id_lookup"]
static_average = false
{plans}
[measures]
take = [{measures}]

[gates]
"overlap@5" = {{ at_least = 0.01, variants = ["int8"] }}
"""
MEASURES = '"ndcg@5", "cold_recall@5", "overlap@5", "latency[repeats=3]", "disk_bytes", "attribution_agreement[sample=8]"'


def planted_tokens() -> Tokens:
    """Return a WordPiece tokenizer whose pieces are the planted words; what it does not know it cannot spell."""
    words = dict.fromkeys((*SPECIALS, ";", *STYLES, *TOPICS, *(word for topic in TOPICS.values() for word in topic)))
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return Tokens(tokenizer)


def planted_model(seed: int = 0) -> Variant:
    """Return an untaught recommender of one layer over the planted words, one tower for all roles."""
    tokens = planted_tokens()
    encoder: Encoder = small_encoder(seed, layers=1, vocabulary=tokens.size)
    tower = Tower(tokens, encoder, "mean", small_tower(seed, layers=1).heads)
    roles = {head: Role("both", head, 24 if head == "text" else 8) for head in HEADS}
    return Variant("reference", Towers({"both": tower}, roles, torch.tensor([1.0, 0.5, 0.25]), history=3))


def write_study(folder: Path, plans: str = PLANS, measures: str = MEASURES, changes: Mapping[str, str] = {}) -> Path:
    """Write the model and a study file into ``folder`` and return the file's path; changes: text of the file, old to new."""
    model = folder / "model"
    if not model.exists():
        planted_model().save(model)
    text = STUDY.format(model=model, plans=plans, measures=measures)
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path

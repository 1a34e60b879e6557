import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from compress_rec.errors import CompressRecError
from compress_rec.recipes.trim_vocabulary import TrimVocabulary, trimmed
from compress_rec.tokens import Tokens
from tests.models import SINGLE, SPECIALS, UNUSED, small_histories, small_lessons, small_texts, small_tokens, small_variant


@pytest.fixture(scope="module")
def towers():
    variant = small_variant()
    lessons = small_lessons(variant)
    return variant.towers.towers["both"], TrimVocabulary().apply(variant.towers.towers["both"], lessons["both"])


def pieces(tower, text):
    backend = tower.tokens.backend()
    return backend.encode(text).tokens


def test_training_texts_do_not_change_by_a_bit(towers):
    before, after = towers
    assert after.tokens.size < before.tokens.size
    for role, texts, length in (("item", small_texts(), 16), ("text", small_histories(), 24)):
        assert torch.equal(before.encode(texts, role, length), after.encode(texts, role, length))


def test_table_and_tokenizer_belong_together(towers):
    before, after = towers
    old, new = before.tokens.backend().get_vocab(), after.tokens.backend().get_vocab()
    assert sorted(new.values()) == list(range(len(new))) == list(range(after.encoder.config.vocabulary))
    words = (before.encoder.tensors()["embeddings.words.weight"], after.encoder.tensors()["embeddings.words.weight"])
    for piece, number in new.items():
        assert torch.equal(words[0][old[piece]], words[1][number])
    used = {piece for text in (*small_texts(), *small_histories()) for piece in before.tokens.backend().encode(text).tokens}
    assert set(UNUSED) <= set(old) - set(new)
    assert not used & (set(old) - set(new))


def test_any_word_can_still_be_spelled(towers):
    before, after = towers
    # "kayak" was a piece that no text uses; "garden" stays
    assert pieces(before, "kayak garden") == ["[CLS]", "kayak", "garden", "[SEP]"]
    assert pieces(after, "kayak garden") == ["[CLS]", "k", "##a", "##y", "##a", "##k", "garden", "[SEP]"]
    assert pieces(after, "gardening") == ["[CLS]", "garden", "##i", "##n", "##g", "[SEP]"]
    assert pieces(after, "βeta") == pieces(before, "βeta") == ["[CLS]", "[UNK]", "[SEP]"]


def test_special_ids_follow():
    tokens = small_tokens()
    new, kept = trimmed(tokens, used=[])
    assert kept == list(range(len(SPECIALS) + 2 * len(SINGLE)))
    stored = json.loads(new.to_json())
    assert {token["content"]: token["id"] for token in stored["added_tokens"]} == {piece: place for place, piece in enumerate(SPECIALS)}
    assert new.ids(["a"], 8) == tokens.ids(["a"], 8)


def test_bert_processing_and_gaps():
    """Special tokens far down the vocabulary get new ids wherever they are written."""
    vocabulary = {"red": 0, "blue": 1, "[UNK]": 2, "r": 3, "##r": 4, "green": 5, "[CLS]": 6, "[SEP]": 7}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 7), ("[CLS]", 6))
    tokens = Tokens(tokenizer)
    new, kept = trimmed(tokens, used=tokens.ids(["green"], 8)[0])
    assert kept == [2, 3, 4, 5, 6, 7]
    assert new.ids(["green red"], 8) == [[4, 3, 0, 5]]


def test_common_and_extra_keep_more():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    assert "kayak" in TrimVocabulary(extra=("a kayak",)).apply(tower, lesson).tokens.backend().get_vocab()
    assert TrimVocabulary(common=10_000).apply(tower, lesson).tokens.size == tower.tokens.size
    assert TrimVocabulary(common=1).apply(tower, lesson).tokens.size == TrimVocabulary().apply(tower, lesson).tokens.size
    with pytest.raises(CompressRecError, match="at least 0, but -1 came"):
        TrimVocabulary(common=-1)


def test_other_tokenizers_are_refused():
    tokens = Tokens(Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(CompressRecError, match="needs a WordPiece tokenizer, but this one is of type 'BPE'"):
        trimmed(tokens, [0])

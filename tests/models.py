"""A small real BERT recommender with random weights, a tokenizer that can spell any lower-case word, and texts to go with them."""

from __future__ import annotations

import itertools

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from compress_rec.encoder import Encoder, EncoderConfig, LayerShape
from compress_rec.recipe import Lesson
from compress_rec.tokens import Tokens
from compress_rec.towers import Head, HeadStage, Role, Tower, Towers
from compress_rec.variant import Variant, lessons_of

WIDTH, DIMENSIONS = 32, 16
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SINGLE = tuple("abcdefghijklmnopqrstuvwxyz0123456789'();:,.-&!")
FIRST = ("red", "blue", "silent", "golden", "last", "lost", "dark", "wild", "hidden", "secret", "broken", "winter")
SECOND = ("river", "story", "house", "garden", "night", "train", "island", "empire", "summer", "letter", "planet", "dream")
GENRES = ("comedy", "drama", "action", "thriller", "romance", "western", "children", "musical")
YEARS = tuple(str(year) for year in range(1990, 2000))
# word pieces that no text below uses: something for vocabulary trimming to remove
UNUSED = ("##ing", "##ed", "##er", "##tion", "xylophone", "quartz", "zephyr", "jigsaw", "oblong", "kayak", "plaza", "fjord")
HEADS = ("item", "behaviour", "text")


def small_tokens() -> Tokens:
    """Return a WordPiece tokenizer over the words above and every single character, inside words too."""
    pieces = (*SPECIALS, *SINGLE, *(f"##{one}" for one in SINGLE), *FIRST, *SECOND, *GENRES, *YEARS, *UNUSED)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return Tokens(tokenizer)


def small_texts(count: int = 96) -> tuple[str, ...]:
    """Return distinct item texts: a title, a year and genres, such as ``red river (1990) comedy drama``."""
    titles = itertools.product(FIRST, SECOND)
    texts = []
    for number, (first, second) in enumerate(itertools.islice(titles, count)):
        genres = f"{GENRES[number % 8]} {GENRES[(number * 3 + 1) % 8]}" if number % 3 else GENRES[number % 8]
        texts.append(f"{first} {second} ({YEARS[number % 10]}) {genres}")
    return tuple(texts)


def small_histories(count: int = 32, last: int = 3) -> tuple[str, ...]:
    """Return history texts: ``last`` item texts joined by semicolons."""
    items = small_texts()
    return tuple("; ".join(items[(row * 7 + 5 * place) % len(items)] for place in range(last)) for row in range(count))


def small_encoder(seed: int = 0, layers: int = 3, vocabulary: int | None = None) -> Encoder:
    """Return a BERT of ``layers`` layers, width 32, 4 heads of 8 and 64 neurons; the weights are large enough for every part to matter."""
    shape = LayerShape(heads=4, head_width=8, neurons=64)
    size = vocabulary or small_tokens().size
    config = EncoderConfig(size, 64, 2, WIDTH, 1e-12, "gelu", (shape,) * layers)
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float) -> Tensor:
        return torch.randn(*size, generator=generator) * scale

    tensors = {
        "embeddings.words.weight": normal(size, WIDTH, scale=0.5),
        "embeddings.positions.weight": normal(64, WIDTH, scale=0.1),
        "embeddings.types.weight": normal(2, WIDTH, scale=0.1),
    }
    places = ["embeddings.norm"]
    for number in range(layers):
        for part, (outputs, inputs) in {
            "query": (32, 32),
            "key": (32, 32),
            "value": (32, 32),
            "output": (32, 32),
            "up": (64, 32),
            "down": (32, 64),
        }.items():
            tensors[f"layers.{number}.{part}.weight"] = normal(outputs, inputs, scale=inputs**-0.5)
            tensors[f"layers.{number}.{part}.bias"] = normal(outputs, scale=0.05)
        places += [f"layers.{number}.attention_norm", f"layers.{number}.output_norm"]
    for place in places:
        # as in trained BERTs, a few directions are much louder than the rest
        tensors[f"{place}.weight"] = torch.exp(normal(WIDTH, scale=0.6))
        tensors[f"{place}.bias"] = normal(WIDTH, scale=0.1)
    return Encoder(config, tensors)


def small_tower(seed: int = 0, layers: int = 3) -> Tower:
    """Return a tower with the heads ``item``, ``behaviour`` and ``text``, each a linear map 32 -> 16."""
    generator = torch.Generator().manual_seed(seed + 1)
    heads = {}
    for name in HEADS:
        weight = torch.randn(DIMENSIONS, WIDTH, generator=generator) * WIDTH**-0.5
        heads[name] = Head([HeadStage()], {"0.weight": weight, "0.bias": torch.randn(DIMENSIONS, generator=generator) * 0.05})
    return Tower(small_tokens(), small_encoder(seed, layers), "mean", heads)


def small_variant(seed: int = 0, layers: int = 3) -> Variant:
    """Return an uncompressed recommender whose one tower serves the three roles."""
    roles = {"item": Role("both", "item", 16), "behaviour": Role("both", "behaviour", 16), "text": Role("both", "text", 32)}
    recency = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3])
    return Variant("reference", Towers({"both": small_tower(seed, layers)}, roles, recency, history=3))


def small_lessons(variant: Variant, seed: int = 0, items: int = 96) -> dict[str, Lesson]:
    """Return the lessons of a small variant: its item texts in two roles and history texts in the third."""
    texts = {"item": small_texts(items), "behaviour": small_texts(items), "text": small_histories()}
    return lessons_of(variant.towers, texts, seed)

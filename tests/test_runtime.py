"""The compiled encoder against the modules it stands for."""

from __future__ import annotations

import copy
import os
import pickle
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compress_rec import op
from compress_rec.encoder import Encoder, EncoderConfig
from compress_rec.errors import CompressRecError
from compress_rec.golden import float_activations
from compress_rec.int8_eights import quantize_by_eights
from compress_rec.ops.int8_linear import int8_linear, quantize_per_channel
from compress_rec.ragged import flat
from compress_rec.recipe import read_plan
from compress_rec.runtime import CannotCompile, Runtime
from compress_rec.tokens import batches
from compress_rec.towers import Head, HeadStage, Tower
from compress_rec.variant import Variant, compress, load
from compress_rec.weights import DENSE, ChainForm, DenseForm, Embedding, Int8, SharedForm, Sum
from tests.models import small_lessons, small_texts, small_tokens, small_variant
from tests.random_towers import random_tower

pytestmark = pytest.mark.skipif("avx2" not in op.tiers(), reason="no compiled kernel runs here: the encoder has the reference alone")
VOCABULARY = small_tokens().size
PLANS: dict[str, list] = {
    "nothing": [],
    "int8": ["quantize_int8"],
    "int8 as it comes": [{"recipe": "quantize_int8", "smooth": 0, "embeddings": False}],
    "low rank": [{"recipe": "factorize", "keep": 0.5, "method": "plain"}],
    "int8 in low rank": [{"recipe": "factorize", "keep": 0.6, "method": "plain"}, "quantize_int8"],
    "shared factors": [{"recipe": "tucker", "iterations": 2}, "quantize_int8"],
    "fewer heads and neurons": [{"recipe": "prune_heads", "keep": 0.5}, {"recipe": "prune_neurons", "keep": 0.3}, "quantize_int8"],
    "fewer layers": [{"recipe": "drop_layers", "keep": 1}],
    "no layer": ["static"],
    "sparse": ["prune_weights"],
    "fewer word pieces": ["trim_vocabulary", "quantize_int8"],
}


def made(plan: list) -> Variant:
    variant = small_variant()
    return compress(variant, plan, {role: texts for lesson in small_lessons(variant).values() for role, texts in lesson.texts.items()})


def exact(tower: Tower, ids: list[list[int]], head: str) -> Tensor:
    """The same vectors in float64, no activation rounded."""
    wide = float_activations(tower)
    table = wide.encoder.embeddings["words"]
    if table.int8:
        wide.encoder.embeddings["words"] = Embedding(DENSE, {"words.weight": table.dense()}, "words")
    wide.double()
    done = torch.zeros(len(ids), tower.dimensions(head), dtype=torch.float64)
    with torch.inference_mode():
        for batch in batches(ids, 64):
            done[batch.rows] = wide({"ids": batch.ids, "mask": batch.mask}, head)
    return done


def lengths(count: int, most: int, seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, most))] for _ in range(count)]


@pytest.mark.parametrize("plan", PLANS)
def test_as_the_modules_do(plan):
    variant = made(PLANS[plan])
    tower, served = variant.towers.towers["both"], variant.compile().towers.towers["both"]
    assert served.backend == "compiled"
    ids = [[number % tower.tokens.size for number in one] for one in lengths(150, 40, 0)]
    table, offsets = map(torch.from_numpy, flat(ids))
    for head in ("item", "text"):
        truth = exact(tower, ids, head)
        modules, compiled = tower.encode_ids(table, offsets, head), served.encode_ids(table, offsets, head)
        if any("quantize_int8" in str(step) for step in PLANS[plan]):
            # rounding makes noise of its own in both: neither may have more of it
            noise, ours = (float((vectors - truth).square().mean().sqrt()) for vectors in (modules, compiled))
            assert ours < 1.25 * noise
        else:
            worst, ours = (float((vectors - truth).abs().max()) for vectors in (modules, compiled))
            assert ours <= 2 * max(worst, 2**-22)


@pytest.mark.parametrize("plan", PLANS)
def test_alone_and_in_any_batch_with_any_threads(plan):
    served = made(PLANS[plan]).compile()
    texts = list(small_texts(60))
    together = served.encode(texts, "item")
    assert torch.equal(together, torch.cat([served.encode([text], "item") for text in texts]))
    assert torch.equal(together.flip(0), served.encode(texts[::-1], "item"))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(together, served.encode(texts, "item"))
            assert torch.equal(together[:1], served.encode(texts[:1], "item"))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("block", range(12))
def test_random_shapes_in_floats(block):
    for seed in range(block * 20, block * 20 + 20):
        tower = random_tower(seed, integers=False)
        ids = lengths(random.Random(seed).choice([1, 2, 5, 9]), random.Random(seed).choice([1, 3, 20, 70]), seed)
        truth = exact(tower, ids, "item")
        table, offsets = map(torch.from_numpy, flat(ids))
        modules, compiled = (
            tower.encode_ids(table, offsets, "item"),
            Runtime(tower).encode(table.numpy(), offsets.numpy(), ("item",))["item"],
        )
        worst, ours = (float((vectors - truth).abs().max()) for vectors in (modules, compiled))
        assert ours <= 2 * max(worst, 2**-20), (seed, worst, ours)


@pytest.mark.parametrize("block", range(12))
def test_random_shapes_in_integers(block):
    ours, noise = 0.0, 0.0
    for seed in range(block * 20, block * 20 + 20):
        tower = random_tower(seed, integers=True)
        ids = lengths(random.Random(seed).choice([1, 2, 5, 9]), random.Random(seed).choice([1, 3, 20, 70]), seed)
        truth = exact(tower, ids, "item")
        table, offsets = map(torch.from_numpy, flat(ids))
        modules, compiled = (
            tower.encode_ids(table, offsets, "item"),
            Runtime(tower).encode(table.numpy(), offsets.numpy(), ("item",))["item"],
        )
        assert torch.isfinite(compiled).all()
        # where one of two roundings tips a number over, all behind it is rounded anew: noise of its own, but no more of it
        noise += float((modules - truth).square().mean())
        ours += float((compiled - truth).square().mean())
    assert ours < 1.5 * noise, (ours, noise)


@pytest.mark.parametrize("size", [(5, 3), (16, 16), (33, 50), (200, 130)])
@pytest.mark.parametrize("filling", ["eights", "channels", "limit", "negative limit"])
def test_products_of_bytes_are_exact(size, filling):
    """One token, no norm, no layer: the head's product stands alone, and is that of ``int8_linear``."""
    outputs, inputs = size
    generator = torch.Generator().manual_seed(outputs)
    weight = torch.randn(size, generator=generator)
    codes, scales = (quantize_by_eights if filling == "eights" else quantize_per_channel)(weight)
    if "limit" in filling:
        codes = torch.full(size, -127 if "negative" in filling else 127, dtype=torch.int8)
    bias = torch.randn(outputs, generator=generator)
    words = torch.randn(VOCABULARY, inputs, generator=generator)
    words[7] = 3.0  # as far above 0 as a row can be
    words[8, 0] = torch.nan
    encoder = Encoder(EncoderConfig(VOCABULARY, 0, 0, inputs, 1e-5, "gelu", (), False), {"embeddings.words.weight": words})
    head = Head([HeadStage(Int8())], {"0.codes": codes, "0.scales": scales, "0.bias": bias})
    tower = Tower(small_tokens(), encoder, "mean", {"item": head})
    ids = np.arange(VOCABULARY)
    found = Runtime(tower).encode(ids, np.arange(VOCABULARY + 1), ("item",))["item"]
    wanted = F.normalize(int8_linear(words, codes, scales, bias), dim=-1)
    assert torch.allclose(found, wanted, rtol=0, atol=5e-7, equal_nan=True)


def test_lengths_from_one_to_the_last_position():
    tower = random_tower(next(seed for seed in range(100) if suits(random_tower(seed, False))), False)
    runtime = Runtime(tower)
    for length in (1, 2, 5, 6, 7, 15, 16, 17, 31, 47, 48, 49, 95, 97, 128, 200, 511, 512):
        ids = lengths(1, length, length)
        ids[0] = (ids[0] * length)[:length]
        compiled = runtime.encode(*flat(ids), ("item",))["item"]
        assert float((compiled - exact(tower, ids, "item")).abs().max()) < 4e-6, length


def suits(tower: Tower) -> bool:
    config = tower.encoder.config
    return config.positions == 512 and len(config.layers) > 1 and all(min(shape.heads, shape.neurons) > 1 for shape in config.layers)


def test_nothing_to_encode():
    served = small_variant().compile()
    assert served.encode([], "item").shape == (0, 16)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert served.encode_ids(nothing, torch.zeros(1, dtype=torch.int64)).shape == (0, 16)
    assert served.encode([""], "item").shape == (1, 16)


def test_more_tokens_than_a_chunk():
    served = small_variant().compile()
    texts = [text for text in small_texts(90) for _ in range(12)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert sum(map(len, served.towers.towers["both"].tokens.ids(texts, 16))) > 4 * 384 * 2
        vectors = served.encode(texts, "item")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(vectors[::12], served.encode(texts[::12], "item"))
    assert torch.equal(vectors[11::12], vectors[::12])


def test_pooled_and_several_heads():
    variant = small_variant()
    tower, served = variant.towers.towers["both"], variant.compile().towers.towers["both"]
    texts = small_texts(20)
    assert torch.allclose(tower.pooled(texts, 16), served.pooled(texts, 16), atol=1e-5)
    both = served.encode_heads(texts, ("text", "item"), 16)
    assert list(both) == ["text", "item"]
    assert torch.equal(both["item"], served.encode(texts, "item", 16))


REFUSED = {
    "offsets must ascend": ([1, 1], [0, 2, 1]),
    "text 1 must have a token, but it is empty": ([1, 1], [0, 2, 2]),
    "text 0 must have at most 64 tokens, as many as the encoder has positions, but 65 came": ([1] * 65, [0, 65]),
    "offsets must end with the number of ids, 3, but 2 came": ([1, 1, 1], [0, 2]),
    "offsets must begin with 0, but 1 came": ([1, 1], [1, 2]),
    f"ids must be from 0 to {VOCABULARY - 1}, but {VOCABULARY} came at place 1": ([1, VOCABULARY], [0, 2]),
    f"ids must be from 0 to {VOCABULARY - 1}, but -1 came at place 0": ([-1, 1], [0, 2]),
    "offsets must ascend, but -9223372036854775808 came behind 9223372036854775807": ([2, 5, 3], [0, 2**63 - 1, -(2**63), -1, 3]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_the_same_refusals_everywhere(sentence):
    """By the modules' side, by the compiled one, and by the extension alone, which trusts nobody."""
    variant = small_variant()
    ids, offsets = (torch.tensor(part, dtype=torch.int64) for part in REFUSED[sentence])
    runtime = Runtime(variant.towers.towers["both"])
    told = set()
    for call in (
        lambda: variant.encode_ids(ids, offsets),
        lambda: variant.compile().encode_ids(ids, offsets),
        lambda: runtime.encode(ids.numpy(), offsets.numpy(), ("item",)),
    ):
        with pytest.raises(CompressRecError) as refusal:
            call()
        told.add(str(refusal.value))
    assert len(told) == 1
    assert told.pop().startswith(f"encode_ids: {sentence}")


def test_an_unknown_head_is_refused():
    variant = small_variant()
    one = torch.tensor([2, 3]), torch.tensor([0, 2])
    for which in (variant, variant.compile()):
        with pytest.raises(CompressRecError, match="the tower has no head called 'itm'; did you mean 'item'"):
            which.towers.towers["both"].encode_ids(*one, "itm")


def test_what_cannot_be_compiled_says_why_and_is_left_to_torch():
    tower = random_tower(next(seed for seed in range(100) if suits(random_tower(seed, False))), False)
    config, tensors = tower.encoder.config, dict(tower.encoder.tensors())
    place = "layers.0.up"
    dense = tower.encoder.linear(place).dense().detach()
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{place}.") or name == f"{place}.bias"}
    summed = replace(config, formats={**config.formats, place: Sum((DENSE, DENSE))})
    tower = Tower(tower.tokens, Encoder(summed, {**rest, f"{place}.0.weight": dense / 2, f"{place}.1.weight": dense / 2}), "mean")
    with pytest.raises(CannotCompile, match=r"the compiled encoder cannot run 'layers\.0\.up', which is stored as a sum"):
        Runtime(tower)
    variant = small_variant()
    served = replace(variant, towers=variant.towers.with_tower("both", tower)).compile()
    assert served.backend == {"both": "torch: the compiled encoder cannot run 'layers.0.up', which is stored as a sum"}
    assert tower.encode(["red river"], "identity", 16).shape == served.towers.towers["both"].encode(["red river"], "identity", 16).shape


def with_linear_of(place: str, outputs: int, inputs: int) -> Tower:
    """The small tower with a weight of another shape put in past the encoder's own check."""
    tower = small_variant().towers.towers["both"].clone()
    module, _, part = place.rpartition(".")
    owner = tower.encoder.get_submodule(module) if module else tower.head("item")
    owner.add_module(part, DenseForm(torch.zeros(outputs, inputs), torch.zeros(outputs)))
    return tower


@pytest.mark.parametrize(
    ("place", "outputs", "inputs"),
    [
        ("layers.1.key", 48, 32),
        ("layers.1.value", 16, 32),
        ("layers.1.query", 32, 300),
        ("layers.0.output", 48, 32),
        ("layers.0.up", 64, 33),
        ("layers.2.down", 40, 64),
        ("layers.2.down", 32, 65),
        ("0", 16, 8_000_000),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_the_extension(place, outputs, inputs):
    with pytest.raises(CannotCompile, match=r"the compiled encoder wants a (matrix|weight) of"):
        Runtime(with_linear_of(place, outputs, inputs))


def test_factors_that_do_not_fit_are_refused():
    tower = small_variant().towers.towers["both"].clone()
    tower.encoder.layers[0].up = ChainForm((DenseForm(torch.zeros(8, 32)), DenseForm(torch.zeros(64, 9))))
    with pytest.raises(CannotCompile, match="wants a matrix of 8 inputs, at most 131072, where one of 9 stands"):
        Runtime(tower)


def test_a_shared_factor_may_come_twice_and_may_have_no_bias():
    tower = small_variant().towers.towers["both"].clone()
    shared = DenseForm(torch.randn(32, 32, generator=torch.Generator().manual_seed(3)) / 6)
    tower.encoder.layers[1].query = ChainForm((SharedForm(shared), SharedForm(shared)))
    ids, offsets = flat(tower.tokens.ids(small_texts(10), 16))
    found = Runtime(tower).encode(ids, offsets, ("item",))["item"]
    assert torch.allclose(found, tower.encode(small_texts(10), "item", 16), atol=2e-6)
    shared.bias = torch.nn.Parameter(torch.ones(32))
    with pytest.raises(CannotCompile, match=r"cannot run 'layers\.1\.query': the weight it shares has a bias of its own"):
        Runtime(tower)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_left_to_torch(dtype):
    variant = small_variant()
    served = replace(variant, towers=variant.towers.with_tower("both", variant.towers.towers["both"].clone().to(dtype))).compile()
    name = str(dtype).removeprefix("torch.")
    assert served.backend == {"both": f"torch: the compiled encoder reads float32 and int8, and this tower holds {name}"}


@pytest.mark.parametrize("size", [1e4, 1e6, 1e8])
def test_large_scores_are_ranked_as_torch_ranks_them(size):
    """Attention so sharp that a text looks at one token: the largest score's power is 1, whatever its size."""
    tower = small_variant().towers.towers["both"].clone()
    with torch.no_grad():
        for layer in tower.encoder.layers:
            layer.query.weight.mul_(size)
            layer.key.weight.mul_(size)
    ids, offsets = flat(tower.tokens.ids(small_texts(20), 16))
    found = Runtime(tower).encode(ids, offsets, ("item",))["item"]
    assert torch.allclose(found, tower.encode(small_texts(20), "item", 16), atol=1e-4)


def test_copies_and_pickles_are_run_by_the_modules():
    served = made(["quantize_int8"]).compile()
    for copied in (copy.deepcopy(served), pickle.loads(pickle.dumps(served))):
        assert copied.backend == {"both": "torch: a copy of a compiled tower is not compiled: compile it again"}
        assert torch.equal(copied.compile().encode(["red river"], "item"), served.encode(["red river"], "item"))
    assert served.backend == {"both": "compiled"}


class Encoded(torch.utils.data.Dataset):
    """Texts that a loader's worker encodes."""

    def __init__(self, served: Variant) -> None:
        self.served, self.texts = served, small_texts(12)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> Tensor:
        return self.served.encode([self.texts[number]], "item")[0]


def test_in_forked_workers():
    served = made(["quantize_int8"]).compile()
    wanted = served.encode(small_texts(12), "item")
    loader = torch.utils.data.DataLoader(Encoded(served), batch_size=3, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), wanted)


def test_without_the_extension(monkeypatch):
    monkeypatch.setattr(op, "_EXTENSION", None)
    assert small_variant().compile().backend["both"].startswith("torch: the compiled extension was not built")


def test_the_tier_is_obeyed():
    variant = made(["quantize_int8"])
    served = variant.compile()
    assert served.backend == {"both": "compiled"}
    assert variant.backend == {"both": "torch"}
    with op.force("reference"):
        assert served.backend == {"both": "torch: the reference tier is in force"}
        assert torch.equal(served.encode(["red river"], "item"), variant.encode(["red river"], "item"))


def test_saved_and_loaded(tmp_path):
    served = made(["quantize_int8"]).compile()
    loaded = load(served.save(tmp_path / "variant"))
    assert loaded.backend == {"both": "torch"}
    assert torch.equal(loaded.compile().encode(list(small_texts())), served.encode(list(small_texts())))


def test_steps_behind_it_start_from_the_modules():
    served = small_variant().compile()
    further = served.then(read_plan(["quantize_int8"])[0], small_lessons(served))
    assert further.backend == {"both": "torch"}
    assert served.backend == {"both": "compiled"}


def test_a_profile_names_every_step():
    tower = small_variant().towers.towers["both"]
    ids, offsets = flat(tower.tokens.ids(small_texts(20), 16))
    found = Runtime(tower).profile(ids, offsets)
    steps = ["embeddings", "query, key, value", "attention", "output, norm", "up, activation", "down, norm", "pooling"]
    assert list(found) == steps
    assert all(taken > 0 for taken in found.values())
    with pytest.raises(CompressRecError, match="offsets must end with the number of ids"):
        Runtime(tower).profile(ids[:-1], offsets)


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def from_eight_threads(seconds: float, threads: int, watch: Callable[[], None] = lambda: None) -> list[int]:
    """Encode from eight Python threads at once, again and again; return the numbers of those that got other vectors than one alone."""
    served = [made(plan).compile() for plan in ([], ["quantize_int8"])]
    texts = list(small_texts(40))
    wanted = [variant.encode(texts, "item") for variant in served]
    wrong: list[int] = []

    def work(number: int) -> None:
        draw = random.Random(number)
        for _ in range(20):
            first = draw.randrange(30)
            last = first + draw.randint(1, 10)
            which = draw.randrange(2)
            if not torch.equal(served[which].encode(texts[first:last], "item"), wanted[which][first:last]):
                wrong.append(number)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        stop = time.monotonic() + seconds
        while not wrong:
            running = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            watch()
            if time.monotonic() >= stop:
                break
    finally:
        torch.set_num_threads(before)
    return wrong


@pytest.mark.parametrize("threads", [1, 2])
def test_from_eight_threads_at_once(threads):
    assert not from_eight_threads(1.0, threads)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which this system does not have")
def test_eight_threads_without_growth():
    """For two seconds, or as many as COMPRESS_REC_STRESS_SECONDS says; threads that have ended leave no room behind."""
    held: list[int] = []
    assert not from_eight_threads(float(os.environ.get("COMPRESS_REC_STRESS_SECONDS", "2")), 1, lambda: held.append(resident()))
    assert held[-1] - held[0] < 16 << 20

"""Reading and writing Hugging Face folders: a plain BertModel, or a SentenceTransformer around one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import Tensor

from compress_rec.encoder import ACTIVATIONS, Encoder, EncoderConfig, LayerShape
from compress_rec.errors import CompressRecError
from compress_rec.tokens import Tokens
from compress_rec.towers import IDENTITY, Head, HeadStage, Pooling, Role, Tower, Towers

_TOP = {
    "embeddings.word_embeddings": "embeddings.words",
    "embeddings.position_embeddings": "embeddings.positions",
    "embeddings.token_type_embeddings": "embeddings.types",
    "embeddings.LayerNorm": "embeddings.norm",
}
_INNER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "output_norm",
}
_OUTER = {ours: theirs for theirs, ours in _INNER.items()}


def our_name(theirs: str) -> str | None:
    """Return our name of one of BertModel's tensors, ``None`` for those the encoder does not use (the pooler, position ids)."""
    name = theirs.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    stem, _, suffix = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{suffix}"
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if match and match[2] in _INNER:
        return f"layers.{match[1]}.{_INNER[match[2]]}.{suffix}"
    return None


def their_name(ours: str) -> str:
    """Return BertModel's name of one of our tensors."""
    stem, _, suffix = ours.rpartition(".")
    for theirs, name in _TOP.items():
        if stem == name:
            return f"{theirs}.{suffix}"
    _, number, part = stem.split(".")
    return f"encoder.layer.{number}.{_OUTER[part]}.{suffix}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, naming the file where that fails."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise CompressRecError(f"{path} does not exist: a folder with this file was wanted; check the path") from fault
    except (OSError, ValueError) as fault:
        raise CompressRecError(f"{path} cannot be read as JSON ({fault}): save the model again") from fault
    if not isinstance(value, dict):
        raise CompressRecError(f"{path} should hold a JSON object, but {type(value).__name__} came: save the model again")
    return value


def read_encoder(folder: Path) -> Encoder:
    """Read a BertModel's folder: ``config.json`` and its weights (safetensors, sharded or not, or ``pytorch_model.bin``)."""
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "bert":
        raise CompressRecError(f"{folder} holds a model of type '{kind}', but a 'bert' was wanted: only BERT encoders can be read")
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise CompressRecError(
            f"{folder} holds a BERT with relative positions or a decoder, which the encoder does not run: use a plain one"
        )
    ours = _config(config, folder / "config.json")
    tensors = {}
    for theirs, tensor in read_tensors(folder).items():
        name = our_name(theirs)
        if name is not None:
            tensors[name] = tensor.float()
    _check(tensors, ours, folder)
    return Encoder(ours, tensors)


def _config(config: Mapping[str, Any], path: Path) -> EncoderConfig:
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        if heads < 1 or width % heads:
            raise CompressRecError(f"{path} has a hidden_size of {width} for {heads} heads, which does not divide: save the model again")
        shape = LayerShape(heads, width // heads, int(config["intermediate_size"]))
        return EncoderConfig(
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            token_types=int(config["type_vocab_size"]),
            width=width,
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=str(config.get("hidden_act", "gelu")),
            layers=(shape,) * int(config["num_hidden_layers"]),
        )
    except KeyError as fault:
        raise CompressRecError(f"{path} lacks {fault}: save the model again with transformers") from fault
    except (TypeError, ValueError) as fault:
        if isinstance(fault, CompressRecError):
            raise
        raise CompressRecError(f"{path} holds a size that is no number ({fault}): save the model again with transformers") from fault


def _check(tensors: Mapping[str, Tensor], config: EncoderConfig, folder: Path) -> None:
    """Refuse tensors that are missing, have another shape than ``config.json`` says, or hold NaN or infinity."""
    width = config.width
    wanted: dict[str, tuple[int, ...]] = {
        "embeddings.words.weight": (config.vocabulary, width),
        "embeddings.positions.weight": (config.positions, width),
        "embeddings.types.weight": (config.token_types, width),
    }
    norms = ["embeddings.norm"]
    for number, layer in enumerate(config.layers):
        for part in _INNER.values():
            if part.endswith("norm"):
                norms.append(f"layers.{number}.{part}")
                continue
            outputs, inputs = (layer.neurons, width) if part == "up" else (width, layer.neurons) if part == "down" else (width, width)
            wanted[f"layers.{number}.{part}.weight"], wanted[f"layers.{number}.{part}.bias"] = (outputs, inputs), (outputs,)
    wanted |= {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
    for name, shape in wanted.items():
        if name not in tensors:
            raise CompressRecError(
                f"{folder} lacks the tensor '{their_name(name)}', which its config.json calls for: copy or save it again"
            )
        if tuple(tensors[name].shape) != shape:
            raise CompressRecError(
                f"the tensor '{their_name(name)}' in {folder} has the shape {tuple(tensors[name].shape)}, but its config.json calls for "
                f"{shape}: they do not belong together, take both from one model"
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise CompressRecError(
                f"the tensor '{their_name(name)}' in {folder} holds NaN or infinity: finite numbers were wanted, use an earlier checkpoint"
            )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of a Hugging Face folder, whichever way it is stored."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(read_json(index).get("weight_map", {}).values()))
    elif (folder / "model.safetensors").exists():
        files = ["model.safetensors"]
    elif (folder / "pytorch_model.bin").exists():
        try:
            return dict(torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True))
        except Exception as fault:
            raise CompressRecError(f"{folder / 'pytorch_model.bin'} cannot be read ({fault}): copy or save the model again") from fault
    elif (folder / "model.onnx").exists():
        raise CompressRecError(f"{folder} holds an ONNX graph, which cannot be read back: load the folder that it was made from")
    else:
        raise CompressRecError(f"{folder} has no weights: model.safetensors or pytorch_model.bin was wanted; copy the whole model there")
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors.update(read_safetensors(folder / name))
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file; a truncated or missing one is named."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as fault:
        raise CompressRecError(
            f"the tensor file {path} cannot be read ({fault}): it is missing or cut off, copy or save the model again"
        ) from fault


def read_towers(folder: Path | str) -> Towers:
    """Read a BertModel's or a SentenceTransformer's folder as a recommender in which one tower serves every role.

    Vectors have unit length, whether or not the folder asks for it: cosine is what they are compared by.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CompressRecError(f"{folder} is no folder: a Hugging Face model or a saved variant was wanted; check the path")
    inner, pooling, head = folder, cast(Pooling, "mean"), Head((), {})
    if (folder / "modules.json").exists():
        inner, pooling, head = read_modules(folder)
    encoder = read_encoder(inner)
    if head.forms() and head.forms()[0].shape[1] != encoder.config.width:
        raise CompressRecError(
            f"{folder} has a Dense module for {head.forms()[0].shape[1]} numbers behind a model of width {encoder.config.width}: "
            "they do not belong together, save the model again"
        )
    tower = Tower(_tokens(inner), encoder, pooling, {IDENTITY: head})
    cut = min(_length(inner), encoder.config.positions)
    roles = {name: Role("both", IDENTITY, cut) for name in ("item", "behaviour", "text")}
    return Towers({"both": tower}, roles)


def _tokens(folder: Path) -> Tokens:
    """The tokenizer, with a lower-casing step in front where sentence-transformers puts one."""
    tokens = Tokens.read(folder)
    settings = folder / "sentence_bert_config.json"
    if settings.exists() and read_json(settings).get("do_lower_case"):
        backend = tokens.backend()
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
        return Tokens(backend)
    return tokens


def _length(folder: Path) -> int:
    """Tokens at which sentence-transformers cuts a text, or the tokenizer's own limit; none is 10**30, as transformers writes it."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        found = read_json(folder / name).get(key) if (folder / name).exists() else None
        if isinstance(found, int | float) and found >= 2:
            return int(found)
    return 10**30


def read_modules(folder: Path) -> tuple[Path, Pooling, Head]:
    """Read a SentenceTransformer's ``modules.json``: the folder of its BERT, the pooling and the Dense modules as one head."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        chain = [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise CompressRecError(f"{folder / 'modules.json'} cannot be read ({fault!r}): save the model again") from fault
    order = "".join(_LETTERS.get(kind, "?") for kind, _ in chain)
    if not re.fullmatch("TPD*N*", order):
        raise CompressRecError(
            f"{folder} chains {' → '.join(kind for kind, _ in chain) or 'no modules'}, but Transformer → Pooling → any number of "
            "Dense → Normalize was wanted: use such a model"
        )
    settings = folder / "config_sentence_transformers.json"
    found = read_json(settings) if settings.exists() else {}
    prompt = (found.get("prompts") or {}).get(found.get("default_prompt_name"))
    if prompt:
        raise CompressRecError(
            f"{folder} puts the prompt {prompt!r} in front of every text, which the tower does not: set default_prompt_name to null in "
            f"{settings.name} and put it into your texts"
        )
    stages, tensors = list[HeadStage](), dict[str, Tensor]()
    for kind, place in chain:
        if kind == "Dense":
            stage, linear = _dense(place)
            tensors |= {f"{len(stages)}.{name}": tensor for name, tensor in linear.items()}
            stages.append(stage)
    return chain[0][1], _pooling(read_json(chain[1][1] / "config.json"), chain[1][1]), Head(stages, tensors)


_LETTERS = {"Transformer": "T", "Pooling": "P", "Dense": "D", "Normalize": "N"}


def _dense(place: Path) -> tuple[HeadStage, dict[str, Tensor]]:
    config = read_json(place / "config.json")
    elsewhere = {config.get(key, "sentence_embedding") or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
    if config.get("use_residual") or elsewhere != {"sentence_embedding"}:
        raise CompressRecError(
            f"{place} adds its input to its output or works on {', '.join(sorted(map(str, elsewhere)))}, but a plain Dense on the sentence "
            "embedding was wanted: use another model"
        )
    stored = read_tensors(place)
    if "linear.weight" not in stored:
        raise CompressRecError(f"{place} lacks the tensor 'linear.weight': copy or save the model again")
    linear = {name: stored[f"linear.{name}"].float() for name in ("weight", "bias") if f"linear.{name}" in stored}
    for name, tensor in linear.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CompressRecError(
                f"the tensor 'linear.{name}' in {place} holds NaN or infinity: finite numbers were wanted, use an earlier checkpoint"
            )
    # sentence-transformers takes a hyperbolic tangent where nothing is said
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2].lower()
    return HeadStage(activation=activation), linear


def _pooling(config: Mapping[str, Any], place: Path) -> Pooling:
    if config.get("pooling_mode") in ("mean", "cls"):
        return config["pooling_mode"]  # type: ignore[no-any-return]
    chosen = [name for name, on in config.items() if name.startswith("pooling_mode_") and on]
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    if chosen == ["pooling_mode_cls_token"]:
        return "cls"
    raise CompressRecError(
        f"{place} pools by {chosen or config.get('pooling_mode')}, but mean or cls was wanted: use a model with one of them"
    )


def bert_config(config: EncoderConfig) -> dict[str, Any]:
    """Return the ``config.json`` of the BertModel of this shape; refuse where BertModel has no such shape, with the reason."""
    reason = not_plain(config)
    if reason:
        raise CompressRecError(
            f"a plain BertModel cannot hold this variant, because {reason}: export it as onnx, or keep the variant's own folder"
        )
    shape = config.layers[0]
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.token_types,
        "hidden_size": config.width,
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.neurons,
        "hidden_act": config.activation,
        "layer_norm_eps": config.epsilon,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }


def not_plain(config: EncoderConfig) -> str | None:
    """Return why a plain BertModel cannot hold this encoder, or ``None`` where it can."""
    stored = sorted(name for name, form in config.formats.items() if form.kind != "dense")
    if stored:
        return f"'{stored[0]}' is stored as {config.formats[stored[0]].kind}"
    if not config.layers:
        return "it has no transformer layer"
    if len(set(config.layers)) > 1:
        return "its layers differ in heads or neurons"
    shape = config.layers[0]
    if shape.heads * shape.head_width != config.width:
        return f"its {shape.heads} heads of {shape.head_width} do not add up to the width {config.width}"
    if not (config.positions and config.token_types and config.embedding_norm):
        return "it has no positions, token types or embedding norm"
    return None if config.activation in ACTIVATIONS else f"its activation is {config.activation}"

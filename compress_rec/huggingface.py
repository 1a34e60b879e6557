"""Reading and writing Hugging Face folders: a plain BertModel, or a SentenceTransformer around one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
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
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        shape = LayerShape(heads, width // heads, int(config["intermediate_size"]))
        ours = EncoderConfig(
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            token_types=int(config["type_vocab_size"]),
            width=width,
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=str(config.get("hidden_act", "gelu")),
            layers=(shape,) * int(config["num_hidden_layers"]),
        )
    except KeyError as fault:
        raise CompressRecError(f"{folder / 'config.json'} lacks {fault}: save the model again with transformers") from fault
    tensors = {}
    for theirs, tensor in read_tensors(folder).items():
        name = our_name(theirs)
        if name is not None:
            tensors[name] = tensor.float()
    return Encoder(ours, tensors)


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
    """Read a BertModel's or a SentenceTransformer's folder as a recommender in which one tower serves every role."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CompressRecError(f"{folder} is no folder: a Hugging Face model or a saved variant was wanted; check the path")
    inner, pooling, head, length = folder, "mean", Head((), {}), None
    if (folder / "modules.json").exists():
        inner, pooling, head, length = _read_sentence_transformer(folder)
    encoder = read_encoder(inner)
    longest = encoder.config.positions
    tower = Tower(Tokens.read(inner), encoder, pooling, {IDENTITY: head})  # type: ignore[arg-type]
    cut = min(length or longest, longest)
    roles = {name: Role("both", IDENTITY, cut) for name in ("item", "behaviour", "text")}
    return Towers({"both": tower}, roles)


def _read_sentence_transformer(folder: Path) -> tuple[Path, str, Head, int | None]:
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    except ValueError as fault:
        raise CompressRecError(f"{folder / 'modules.json'} cannot be read as JSON ({fault}): save the model again") from fault
    inner, pooling, stages, tensors = folder, "mean", list[HeadStage](), dict[str, Tensor]()
    for module in modules:
        kind, place = str(module["type"]).rpartition(".")[2], folder / module["path"]
        if kind == "Transformer":
            inner = place
        elif kind == "Pooling":
            pooling = _pooling(read_json(place / "config.json"), place)
        elif kind == "Dense":
            config = read_json(place / "config.json")
            activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rpartition(".")[2].lower()
            stored = read_tensors(place)
            number = len(stages)
            stages.append(HeadStage(activation=activation))
            tensors[f"{number}.weight"] = stored["linear.weight"].float()
            if "linear.bias" in stored:
                tensors[f"{number}.bias"] = stored["linear.bias"].float()
        elif kind != "Normalize":
            raise CompressRecError(
                f"{folder} has a module '{kind}', but only Transformer, Pooling, Dense and Normalize can be read: remove it or use another model"
            )
    settings = folder / "sentence_bert_config.json"
    length = read_json(settings).get("max_seq_length") if settings.exists() else None
    return inner, pooling, Head(stages, tensors), length


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

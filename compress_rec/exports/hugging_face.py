"""A folder that transformers loads as a BertModel and sentence-transformers as a SentenceTransformer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file

from compress_rec.errors import CompressRecError
from compress_rec.export import Export, Say, check_golden, write_golden, write_json, write_tokenizer
from compress_rec.golden import GOLDEN_TEXTS
from compress_rec.huggingface import bert_config, read_towers, their_name
from compress_rec.towers import Head, Tower
from compress_rec.variant import Variant

_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}


@dataclass(frozen=True)
class HuggingFace(Export):
    """A Hugging Face folder: ``AutoModel`` gives the same hidden states, ``SentenceTransformer`` the same vectors.

    For every variant that plain BERT can express: the uncompressed model, dropped layers, a trimmed vocabulary. Others are refused with the
    reason.
    """

    name: ClassVar[str] = "hugging_face"

    def write(self, variant: Variant, role: str, folder: Path, say: Say) -> None:
        found, tower = variant.towers.role(role), variant.towers.tower_of(role)
        config, head = bert_config(tower.encoder.config), tower.head(found.head)
        stored = [stage.format.kind for stage in head.stages if stage.format.kind != "dense"]
        if stored:
            raise CompressRecError(
                f"a SentenceTransformer cannot hold this variant, because its head '{found.head}' is stored as {stored[0]}: export it as "
                "onnx, or keep the variant's own folder"
            )
        tensors = {their_name(name): tensor.cpu().contiguous().clone() for name, tensor in tower.encoder.tensors().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", config)
        write_tokenizer(tower.tokens, found.length, folder, cut=False)
        _write_modules(tower, head, found.length, folder)
        wanted = variant.encode(GOLDEN_TEXTS, role)
        write_golden(wanted, role, folder)
        check_golden(wanted, read_towers(folder).encode(GOLDEN_TEXTS, "item"), "Hugging Face folder")


def _write_modules(tower: Tower, head: Head, length: int, folder: Path) -> None:
    """Write what makes a SentenceTransformer of the model: pooling, a Dense a stage of the head, and the norm."""
    width = tower.encoder.config.width
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"):
        pooling[f"pooling_mode_{mode}"] = mode == f"{tower.pooling}_token" or mode == f"{tower.pooling}_tokens"
    _new(folder / "1_Pooling", pooling)
    for stage, form in zip(head.stages, head.forms(), strict=True):
        place = f"{len(modules)}_Dense"
        outputs, inputs = form.shape
        dense = {"in_features": inputs, "out_features": outputs, "bias": form.bias is not None}
        _new(folder / place, {**dense, "activation_function": _ACTIVATIONS[stage.activation]})
        linear = {"linear.weight": form.dense()} | ({} if form.bias is None else {"linear.bias": form.bias})
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in linear.items()}
        save_file(kept, folder / place / "model.safetensors", metadata={"format": "pt"})
        modules.append((place, "Dense"))
    # sentence-transformers wants the folder, and reads nothing in it
    _new(folder / f"{len(modules)}_Normalize", {})
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (place, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    settings = {"prompts": dict[str, str](), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", settings)


def _new(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    write_json(folder / "config.json", config)

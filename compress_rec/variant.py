"""Towers and how they were made: what a plan turns one into the next, and what is saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.files import new_folder
from compress_rec.golden import GOLDEN_COSINE, GOLDEN_TEXTS, golden_bound
from compress_rec.huggingface import read_json, read_safetensors, read_towers
from compress_rec.recipe import Lesson, Plan, Step, read_plan
from compress_rec.runtime import compiled
from compress_rec.tokens import Tokens
from compress_rec.towers import Role, Tower, Towers

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Variant:
    """A recommender and the steps that made it from the uncompressed one.

    name: how reports call it; towers: the recommender; steps: the plan so far, empty for the uncompressed model
    """

    name: str
    towers: Towers
    steps: tuple[Step, ...] = ()

    def encode(self, texts: Sequence[str], role: str = "item", batch: int = 64) -> Tensor:
        """Encode texts in a role (``item``, ``behaviour`` or ``text``): -> (texts, dimensions) float32, unit length."""
        return self.towers.encode(texts, role, batch)

    def encode_ids(self, ids: Tensor, offsets: Tensor, role: str = "item") -> Tensor:
        """Encode texts that are token ids already, one behind the other, nothing padded: -> (texts, dimensions) float32, unit length.

        ids: (tokens,) int64; offsets: (texts + 1,) int64, ascending from 0 to the number of ids; see ``Tower.encode_ids``
        """
        return self.towers.encode_ids(ids, offsets, role)

    def compile(self) -> Variant:
        """Return the variant with every tower run by the compiled encoder: the same vectors up to rounding, sooner.

        Its tensors are packed once, as they are now; ``encode`` and ``encode_ids`` then take ragged batches without padding, and a text's
        vector has the same bits alone and in any batch. A tower that the compiled encoder cannot run, one on another device than the CPU
        among them, is left to torch: ``backend`` says which, and why. Copies and pickles of a compiled variant are not compiled.
        """
        return replace(self, towers=compiled(self.towers))

    @property
    def backend(self) -> Mapping[str, str]:
        """What encodes texts, by the tower's name: ``"compiled"``, ``"torch"``, or ``"torch: "`` and why it is not compiled."""
        return {name: tower.backend for name, tower in self.towers.towers.items()}

    def then(self, step: Step, lessons: Mapping[str, Lesson]) -> Variant:
        """Return the variant after one more step; this one is left as it is.

        lessons: one a tower, by the tower's name in the uncompressed recommender; an untied user's tower learns from its first owner's
        """
        towers = self.towers if step.tower == "both" else self.towers.untied()
        item = towers.role("item").tower
        chosen = [name for name in towers.towers if step.tower == "both" or (name == item) == (step.tower == "item")]
        for name in chosen:
            lesson = lesson_for(name, towers, lessons)
            try:
                towers = towers.with_tower(name, step.recipe.apply(towers.towers[name], lesson))
            except CompressRecError as refusal:
                before = " → ".join(done.recipe.label for done in self.steps) or "the uncompressed model"
                raise CompressRecError(f"the step '{step.recipe.label}' after {before} cannot be done: {refusal}") from refusal
        return replace(self, towers=towers, steps=(*self.steps, step))

    def tensors(self) -> dict[str, Tensor]:
        """Return every stored tensor by name, the tower's name in front."""
        named = {f"{name}.{place}": tensor for name, tower in self.towers.towers.items() for place, tensor in tower.tensors().items()}
        if self.towers.recency is not None:
            named["recency"] = self.towers.recency
        return named

    def save(self, folder: Path | str) -> Path:
        """Write the variant to a folder, all of it or nothing: configuration, tensors, steps, tokenizers and golden vectors."""
        folder = Path(folder)
        if folder.exists() and not (folder / "tensors.safetensors").exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CompressRecError(
                f"{folder} holds something else than a saved variant and was left as it is: name a new or an empty folder"
            )
        config = {
            "compress_rec": SCHEMA,
            "name": self.name,
            "towers": {name: tower.to_json() for name, tower in self.towers.towers.items()},
            "roles": {name: [role.tower, role.head, role.length] for name, role in self.towers.roles.items()},
            "history": self.towers.history,
            "notes": dict(self.towers.notes),
        }
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors().items()}
        golden = {role: self.encode(GOLDEN_TEXTS, role).contiguous() for role in self.towers.roles}
        for role, vectors in golden.items():
            if not bool(torch.isfinite(vectors).all()):
                raise CompressRecError(
                    f"the variant '{self.name}' encodes to NaN or infinity in the role '{role}' and was not saved: undo its last step"
                )
        bounds = {
            name: golden_bound(self.towers.towers[role.tower], role.head, role.length, golden[name])
            for name, role in self.towers.roles.items()
        }
        with new_folder(folder) as aside:
            (aside / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
            (aside / "steps.json").write_text(json.dumps([step.to_json() for step in self.steps], indent=1), encoding="utf-8")
            save_file(tensors, aside / "tensors.safetensors")
            save_file(golden, aside / "golden.safetensors")
            known = {"texts": list(GOLDEN_TEXTS), "cosine_at_least": bounds}
            (aside / "golden.json").write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
            for name, tower in self.towers.towers.items():
                (aside / "tokenizers" / name).mkdir(parents=True)
                (aside / "tokenizers" / name / "tokenizer.json").write_text(tower.tokens.to_json(), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: Path | str, replay: bool = True) -> Variant:
        """Read a saved variant; with ``replay``, encode its golden texts again and refuse where a cosine is below the bound saved beside.

        The bound is 0.9999, and lower where activations are rounded (see ``golden_bound``).
        """
        folder = Path(folder)
        config = read_json(folder / "config.json")
        if config.get("compress_rec") != SCHEMA:
            raise CompressRecError(
                f"{folder} should hold a variant of format {SCHEMA}, but its config.json says {config.get('compress_rec')!r}: save it again"
            )
        tensors = read_safetensors(folder / "tensors.safetensors")
        try:
            towers = {}
            for name, value in config["towers"].items():
                below = {place.removeprefix(f"{name}."): tensor for place, tensor in tensors.items() if place.startswith(f"{name}.")}
                towers[name] = Tower.from_json(value, below, Tokens.read(folder / "tokenizers" / name))
            roles = {name: Role(*parts) for name, parts in config["roles"].items()}
            whole = Towers(towers, roles, tensors.get("recency"), int(config["history"]), config.get("notes", {}))
            steps = read_plan(json.loads((folder / "steps.json").read_text(encoding="utf-8")))
        except (KeyError, TypeError, OSError, json.JSONDecodeError) as fault:
            raise CompressRecError(f"the variant in {folder} is incomplete or damaged ({fault!r}): copy or save it again") from fault
        variant = cls(str(config["name"]), whole, steps)
        if replay:
            variant.replay(folder)
        return variant

    def replay(self, folder: Path) -> None:
        """Encode the golden texts in ``folder`` and refuse where they do not come out as they were saved."""
        golden = read_safetensors(folder / "golden.safetensors")
        known = read_json(folder / "golden.json")
        texts, bounds = known.get("texts", []), known.get("cosine_at_least", {})
        for role, vectors in golden.items():
            if len(texts) != len(vectors):
                raise CompressRecError(
                    f"{folder} has {len(texts)} golden texts and {len(vectors)} golden vectors: it is damaged, copy or save it again"
                )
            worst, wanted = float((self.encode(texts, role) * vectors).sum(-1).min()), float(bounds.get(role, GOLDEN_COSINE))
            if not worst >= wanted:
                raise CompressRecError(
                    f"the variant in {folder} does not do what it did when it was saved: in the role '{role}' a golden text has cosine "
                    f"{worst:.6f}, at least {wanted:.6f} was wanted; copy or save it again"
                )


def lesson_for(name: str, towers: Towers, lessons: Mapping[str, Lesson]) -> Lesson:
    """Return the lesson of a tower: its own, or, for a user's tower that was untied, that of the tower it came from, for its roles only."""
    if not lessons:
        raise CompressRecError("a plan's step needs training texts to learn from, but no lesson was given: pass texts=…")
    source = lessons.get(name) or next(iter(lessons.values()))
    mine = {role for role, found in towers.roles.items() if found.tower == name}
    if set(source.roles) == mine:
        return source
    texts = {role: texts for role, texts in source.texts.items() if role in mine}
    if not any(texts.values()):
        raise CompressRecError(
            f"the tower '{name}' serves {', '.join(sorted(mine))}, but the lesson has no texts for these roles: give some"
        )
    key = ("part", name)
    if key not in source._shared:
        roles = {role: found for role, found in source.roles.items() if role in mine}
        source._shared[key] = Lesson(source.reference, roles, texts, source.seed)
    return source._shared[key]  # type: ignore[no-any-return]


def load(folder: Path | str) -> Variant:
    """Load a saved variant, a Hugging Face BertModel's folder or a SentenceTransformer's folder.

    The latter two come back as the uncompressed model with one tower for all roles (``item``, ``behaviour``, ``text``).
    Raises ``CompressRecError`` with one sentence for a folder that is none of these, is incomplete or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CompressRecError(f"{folder} is no folder: a saved variant or a Hugging Face model was wanted; check the path")
    if (folder / "config.json").exists() and "compress_rec" in read_json(folder / "config.json"):
        return Variant.load(folder)
    return Variant("reference", read_towers(folder))


def compress(
    variant: Variant,
    plan: Plan,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
) -> Variant:
    """Apply a plan to a model and return the compressed variant; the given one is left as it is.

    plan: a list as in a study file: ``["quantize_int8"]``, ``[{"recipe": "prune_heads", "keep": 0.5}, "distill"]``
    texts: training texts that calibration and recovery learn from: a list (item texts), or lists by role
    pairs: (user's text, item's text) tuples, optional: their texts are added to the roles ``text`` and ``item``
    name: of the new variant; the plan's labels where it is absent
    seed: of everything drawn at random; the same seed gives the same bits on the same machine
    """
    steps = read_plan(plan)
    given = texts if isinstance(texts, Mapping) else {"item": texts}
    for role, found in given.items():
        # the letters of a string would pass for texts
        if isinstance(found, str):
            where = f"texts of the role '{role}'" if isinstance(texts, Mapping) else "texts"
            raise CompressRecError(f"{where} should be a list of strings, but a single string came: put it into a list")
    by_role = {role: list(found) for role, found in given.items()}
    for number, pair in enumerate(pairs or ()):
        if not (
            isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        ):
            raise CompressRecError(f"pair {number} should be (user's text, item's text), but {pair!r} came: give two strings")
        by_role.setdefault("text", []).append(pair[0])
        by_role.setdefault("item", []).append(pair[1])
    lessons = lessons_of(variant.towers, by_role, seed)
    for step in steps:
        variant = variant.then(step, lessons)
    return replace(variant, name=name or " → ".join(step.recipe.label for step in variant.steps) or variant.name)


def lessons_of(towers: Towers, texts: Mapping[str, Sequence[str]], seed: int = 0) -> dict[str, Lesson]:
    """Return a lesson a tower from training texts by role."""
    for role, found in texts.items():
        towers.role(role)
        for number, text in enumerate(found):
            if not isinstance(text, str):
                raise CompressRecError(
                    f"text {number} of the role '{role}' should be a string, but {type(text).__name__} came: give strings"
                )
    lessons = {}
    for name, tower in towers.towers.items():
        roles = {role: found for role, found in towers.roles.items() if found.tower == name}
        mine = {role: tuple(texts[role]) for role in roles if texts.get(role)}
        if mine:
            lessons[name] = Lesson(tower, roles, mine, seed)
    if not lessons:
        raise CompressRecError("there are no training texts: calibration and recovery learn from them; give at least one string")
    return lessons


def size_on_disk(folder: Path | str) -> dict[str, int]:
    """Return the bytes of a saved variant by part: tensors, configuration, tokenizers (the golden vectors are no part of the model)."""
    folder = Path(folder)
    parts: dict[str, Any] = {
        "tensors": (folder / "tensors.safetensors").stat().st_size,
        "config": (folder / "config.json").stat().st_size,
        "tokenizer": sum(path.stat().st_size for path in (folder / "tokenizers").rglob("*.json")),
    }
    return parts

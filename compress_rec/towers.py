"""A tower (tokenizer, encoder, pooling, heads) and the recommender made of towers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.encoder import Encoder, EncoderConfig
from compress_rec.errors import CompressRecError, nearest
from compress_rec.ragged import arrays, check, flat
from compress_rec.tokens import Tokens, batches
from compress_rec.weights import DENSE, Form, Format, build_form, format_from_json, format_to_json

Pooling = Literal["mean", "cls"]
HEAD_ACTIVATIONS = {"identity": lambda x: x, "tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu}
IDENTITY = "identity"


@dataclass(frozen=True)
class HeadStage:
    """A linear map with an activation behind it: one of a head's stages."""

    format: Format = DENSE
    activation: str = "identity"


class Head(nn.Module):
    """What stands between the pooled vector and the normalised one: no, one or several linear stages."""

    def __init__(self, stages: Sequence[HeadStage], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        for number, stage in enumerate(self.stages):
            if stage.activation not in HEAD_ACTIVATIONS:
                raise CompressRecError(
                    f"a head's activation '{stage.activation}' is not known{nearest(stage.activation, HEAD_ACTIVATIONS)}"
                )
            self.add_module(str(number), build_form(stage.format, tensors, str(number), {}))

    def forms(self) -> tuple[Form, ...]:
        """The linear stages in order."""
        return tuple(self.get_submodule(str(number)) for number in range(len(self.stages)))  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """(texts, width) -> (texts, dimensions)."""
        for stage, form in zip(self.stages, self.forms(), strict=True):
            x = HEAD_ACTIVATIONS[stage.activation](form(x))
        return x


class Serves(Protocol):
    """What may run a tower in the place of its modules: ``compress_rec.runtime.Runtime``."""

    @property
    def serves(self) -> bool: ...

    def encode(self, ids: Any, offsets: Any, heads: Sequence[str]) -> dict[str, Tensor]: ...

    def pooled(self, ids: Any, offsets: Any) -> Tensor: ...


class Tower(nn.Module):
    """Texts to unit vectors, through one of several named heads."""

    _runtime: Serves | None = None
    _reason: str | None = None

    def __init__(self, tokens: Tokens, encoder: Encoder, pooling: Pooling = "mean", heads: Mapping[str, Head] | None = None) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise CompressRecError(f"pooling must be 'mean' or 'cls', but {pooling!r} came: use a model with one of them")
        if tokens.size > encoder.config.vocabulary:
            raise CompressRecError(
                f"the tokenizer has {tokens.size} word pieces and the embedding table {encoder.config.vocabulary} rows: "
                "they do not belong together, take both from one folder"
            )
        self.tokens, self.encoder, self.pooling = tokens, encoder, pooling
        self.heads = nn.ModuleDict(dict(heads) if heads else {IDENTITY: Head((), {})})
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the tower's tensors lie."""
        return next(itertools.chain(self.encoder.parameters(), self.encoder.buffers())).device

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(texts, length, width), (texts, length) -> (texts, width): the mean over real tokens or the first token."""
        if self.pooling == "cls":
            return hidden[:, 0]
        weight = mask.to(hidden.dtype)[:, :, None]
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1e-9)

    def forward(self, inputs: Mapping[str, Tensor], head: str) -> Tensor:
        """Encode a padded batch: ``ids`` and ``mask`` (texts, length) -> (texts, dimensions) float32, unit length."""
        return F.normalize(self.head(head)(self.pool(self.encoder(inputs["ids"], inputs["mask"]), inputs["mask"])), dim=-1)

    def head(self, name: str) -> Head:
        """Return the head of that name, or refuse with the nearest."""
        if name not in self.heads:
            raise CompressRecError(f"the tower has no head called '{name}'{nearest(name, self.heads)}")
        return self.heads[name]  # type: ignore[return-value]

    def served_by(self, runtime: Serves | None, reason: str | None = None) -> Tower:
        """Return this tower, tensors shared, with what runs it instead of its modules; or with the reason why nothing does."""
        made = copy.copy(self)  # without its runtime
        made._runtime, made._reason = runtime, reason
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are run by the modules: the runtime's memory is no part of them."""
        state = dict(self.__dict__)
        if state.pop("_runtime", None) is not None:
            state["_reason"] = "a copy of a compiled tower is not compiled: compile it again"
        return state

    @property
    def uncompiled(self) -> str | None:
        """Why the modules encode texts although the compiled runtime was asked for; ``None`` where it was not, or serves."""
        return self._reason

    @property
    def backend(self) -> str:
        """What encodes texts: ``"compiled"``, or ``"torch"``, with the reason behind a colon where the compiled runtime was asked for."""
        if self._runtime is not None:
            return "compiled" if self._runtime.serves else "torch: the reference tier is in force"
        return "torch" if self._reason is None else f"torch: {self._reason}"

    def encode(self, texts: Sequence[str], head: str, length: int, batch: int = 64) -> Tensor:
        """Encode any number of texts without gradients: -> (texts, dimensions) float32 on the CPU, unit length, in the order given.

        length: tokens at which a text is cut; batch: texts a forward pass
        """
        return self.encode_heads(texts, (head,), length, batch)[head]

    def encode_heads(self, texts: Sequence[str], heads: Sequence[str], length: int, batch: int = 64) -> dict[str, Tensor]:
        """Encode texts once and send them through several heads: -> a tensor a head, each as ``encode`` gives it."""
        return self._encode_lists(self.tokens.ids(texts, length), heads, batch)

    def encode_ids(self, ids: Tensor, offsets: Tensor, head: str, batch: int = 64) -> Tensor:
        """Encode texts that are token ids already, one behind the other: -> (texts, dimensions) float32 on the CPU, unit length.

        ids: (tokens,) int64, the special tokens among them; offsets: (texts + 1,) int64, from 0 to the number of ids: text t is
        ``ids[offsets[t] : offsets[t + 1]]``; neither may change during the call; batch: texts a forward pass, where modules run them

        Errors: another dtype or shape, ids beyond the vocabulary, offsets that do not ascend, a text without a token (of an empty text
        the tokenizer makes two), one longer than the encoder's positions.
        """
        self.head(head)
        flat_ids, places = arrays(ids, offsets)
        if self._runtime is not None and self._runtime.serves:
            return self._runtime.encode(flat_ids, places, (head,))[head]
        check(flat_ids, places, self.encoder.config.vocabulary, self.encoder.config.positions)
        lists = [flat_ids[begin:end].tolist() for begin, end in itertools.pairwise(places.tolist())]
        return self._encode_lists(lists, (head,), batch)[head]

    def _encode_lists(self, ids: Sequence[Sequence[int]], heads: Sequence[str], batch: int) -> dict[str, Tensor]:
        chosen = {name: self.head(name) for name in heads}
        if self._runtime is not None and self._runtime.serves:
            return self._runtime.encode(*flat(ids), tuple(chosen))
        done = {name: torch.zeros(len(ids), self.dimensions(name)) for name in chosen}
        with torch.inference_mode():
            for rows, pooled in self._pooled(ids, batch):
                for name, head in chosen.items():
                    done[name][rows] = F.normalize(head(pooled), dim=-1).cpu()
        return done

    def pooled(self, texts: Sequence[str], length: int, batch: int = 64) -> Tensor:
        """Encode texts up to the pooling, with no head and no normalisation: -> (texts, width) float32 on the CPU, in the order given."""
        ids = self.tokens.ids(texts, length)
        if self._runtime is not None and self._runtime.serves:
            return self._runtime.pooled(*flat(ids))
        done = torch.zeros(len(ids), self.encoder.config.width)
        with torch.inference_mode():
            for rows, pooled in self._pooled(ids, batch):
                done[rows] = pooled.cpu()
        return done

    def _pooled(self, ids: Sequence[Sequence[int]], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        device, training = self.device, self.training
        self.eval()
        for piece in batches(ids, batch):
            moved = piece.to(device)
            yield piece.rows, self.pool(self.encoder(moved.ids, moved.mask), moved.mask)
        self.train(training)

    def dimensions(self, head: str) -> int:
        """Width of the vectors that leave through this head."""
        forms = self.head(head).forms()
        return forms[-1].shape[0] if forms else self.encoder.config.width

    def rebuilt(self, encoder: Encoder | None = None, tokens: Tokens | None = None, heads: Mapping[str, Head] | None = None) -> Tower:
        """Return a new tower with the given parts replaced; parts not given are cloned, so that nothing is shared with this one."""
        cloned = {name: Head(head.stages, _cloned(head)) for name, head in self.heads.items()} if heads is None else heads  # type: ignore[arg-type,misc]
        return Tower(tokens or self.tokens, encoder or self.encoder.clone(), self.pooling, cloned)

    def clone(self) -> Tower:
        """Return an equal tower that shares no memory with this one."""
        return self.rebuilt()

    def tensors(self) -> dict[str, Tensor]:
        """Return every stored tensor by name: ``encoder.…`` and ``heads.<name>.…``."""
        named = {f"encoder.{name}": tensor for name, tensor in self.encoder.tensors().items()}
        for name, head in self.heads.items():
            named.update({f"heads.{name}.{place}": tensor.detach() for place, tensor in head.state_dict().items()})
        return named

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values; the tokenizer is stored beside it."""
        heads = {
            name: [{"format": format_to_json(stage.format), "activation": stage.activation} for stage in head.stages]  # type: ignore[union-attr]
            for name, head in self.heads.items()
        }
        return {"encoder": self.encoder.config.to_json(), "pooling": self.pooling, "heads": heads}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], tensors: Mapping[str, Tensor], tokens: Tokens) -> Tower:
        """Build the tower from its configuration, tensors and tokenizer."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        try:
            encoder = Encoder(EncoderConfig.from_json(value["encoder"]), below("encoder."))
            heads = {
                name: Head([HeadStage(format_from_json(s["format"]), s["activation"]) for s in stages], below(f"heads.{name}."))
                for name, stages in value["heads"].items()
            }
            return cls(tokens, encoder, value["pooling"], heads)
        except KeyError as fault:
            raise CompressRecError(f"the tower's configuration lacks {fault}: the folder is damaged, save the model again") from fault


def _cloned(head: Head) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}


@dataclass(frozen=True)
class Role:
    """What a text is encoded as: by which tower, through which head, cut at how many tokens."""

    tower: str
    head: str
    length: int


@dataclass(frozen=True, eq=False)
class Towers:
    """The recommender.

    towers: by name; one tower used for both sides is one object, compressed once and stored once
    roles: ``item`` (a catalogue entry), ``behaviour`` (one thing a user did, pooled with others) and ``text`` (a history as one text)
    recency: (positions,) weights of a user's last behaviours, the most recent first, for the pooled user; ``None`` means equal weights
    """

    towers: Mapping[str, Tower]
    roles: Mapping[str, Role]
    recency: Tensor | None = None
    history: int = 6
    notes: Mapping[str, Any] = field(default_factory=dict)

    def role(self, name: str) -> Role:
        """Return the role of that name, or refuse with the nearest."""
        if name not in self.roles:
            raise CompressRecError(f"the model has no role called '{name}'{nearest(name, self.roles)}")
        return self.roles[name]

    def tower_of(self, role: str) -> Tower:
        """Return the tower that serves a role."""
        return self.towers[self.role(role).tower]

    def encode(self, texts: Sequence[str], role: str = "item", batch: int = 64) -> Tensor:
        """Encode texts in a role: -> (texts, dimensions) float32, unit length."""
        if isinstance(texts, str):
            raise CompressRecError("texts should be a list of strings, but a single string came: put it into a list")
        found = self.role(role)
        return self.towers[found.tower].encode(texts, found.head, found.length, batch)

    def encode_ids(self, ids: Tensor, offsets: Tensor, role: str = "item") -> Tensor:
        """Encode texts that are token ids already, as ``Tower.encode_ids`` does: -> (texts, dimensions) float32, unit length.

        Nothing is cut: the role's length is the caller's business.
        """
        found = self.role(role)
        return self.towers[found.tower].encode_ids(ids, offsets, found.head)

    def pooled(self, behaviours: Tensor, histories: Sequence[Sequence[int]]) -> Tensor:
        """Return the users' vectors from the vectors of what they did.

        behaviours: (items, dimensions) float32, one unit vector an item in the role ``behaviour``
        histories: item indexes a user, oldest first
        returns: (users, dimensions) float32, unit length; the zero vector for an empty history
        """
        weights, rows, columns = [], [], []
        for user, history in enumerate(histories):
            recent = list(history)[::-1]
            if self.recency is not None:
                recent = recent[: len(self.recency)]
                weights.append(self.recency[: len(recent)])
            else:
                weights.append(torch.ones(len(recent)))
            rows += [user] * len(recent)
            columns += recent
        if not rows:
            return torch.zeros(len(histories), behaviours.shape[1])
        total = torch.zeros(len(histories), behaviours.shape[1], dtype=behaviours.dtype)
        places = torch.tensor(rows)
        total.index_add_(0, places, behaviours[torch.tensor(columns)] * torch.cat(weights)[:, None].to(behaviours.dtype))
        return F.normalize(total, dim=-1)

    def with_tower(self, name: str, tower: Tower) -> Towers:
        """Return the recommender with one tower replaced."""
        return replace(self, towers={**self.towers, name: tower})

    def untied(self) -> Towers:
        """Return the recommender with the user's roles on a tower of their own, called ``user``; a copy where they shared the item's."""
        item = self.role("item").tower
        users = {name: role for name, role in self.roles.items() if name != "item"}
        if all(role.tower != item for role in users.values()):
            return self
        towers = {**self.towers, "user": self.towers[item].clone()}
        roles = {**self.roles, **{name: replace(role, tower="user") for name, role in users.items()}}
        return replace(self, towers=towers, roles=roles)

"""How a variant's weights run: as stored or rebuilt dense, and whether a compiled kernel serves. What a reader must know of its clock."""

from __future__ import annotations

from collections.abc import Iterator

from compress_rec.op import fallback
from compress_rec.towers import Towers
from compress_rec.weights import ChainForm, DiagonalForm, Form, Int8Form, SumForm, resolve


def ends(form: Form) -> Iterator[Form]:
    """Yield the forms that hold tensors: the factors of chains and sums, and what a shared form shares."""
    form = resolve(form)
    if isinstance(form, ChainForm | SumForm):
        for part in form.parts:
            yield from ends(part)
    else:
        yield form


def chains(form: Form) -> Iterator[ChainForm]:
    """Yield the chains of factors, those in sums among them; a diagonal before a weight makes no factors of it."""
    form = resolve(form)
    if isinstance(form, SumForm):
        for part in form.parts:
            yield from chains(part)
    elif isinstance(form, ChainForm) and sum(not isinstance(resolve(part), DiagonalForm) for part in form.parts) > 1:
        yield form


def notes(towers: Towers) -> tuple[str, ...]:
    """Return in a few words each what keeps a variant's time from following its size."""
    told = list(dict.fromkeys(tower.uncompiled for tower in towers.towers.values() if tower.uncompiled is not None))
    forms = [form for tower in towers.towers.values() for _, form in tower.encoder.forms()]
    found = [end for form in forms for end in ends(form)]
    factored = [chain for form in forms for chain in chains(form)]
    dear = sum(chain.operations() > chain.shape[0] * chain.shape[1] for chain in factored)
    if dear:
        told.append(
            f"above the break-even: {dear} of {len(factored)} factorized weights take more multiplications than the weight they stand for, "
            "so that time does not fall"
        )
    if any(end.bytes_only for end in found):
        told.append("bytes only: sparse weights are rebuilt dense at load, so that time stays")
    if any(isinstance(end, Int8Form) for end in found):
        reason = fallback("int8_linear_packed")
        if reason is not None:
            told.append(f"smaller, but int8_linear runs on its reference here ({reason}), so that time does not follow size")
    return tuple(told)

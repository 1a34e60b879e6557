"""Taking rows and columns out of a stored weight, whatever its format, so that a pruned layer is really smaller."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compress_rec.encoder import Encoder, linear_tensors, with_linear
from compress_rec.recipe import Moments
from compress_rec.sparse import sparse_tensors, unpack_sparse
from compress_rec.weights import Chain, Dense, Diagonal, Format, Int8, Shared, Sparse, Sum


def keep_outputs(form: Format, tensors: Mapping[str, Tensor], place: str, rows: Tensor) -> dict[str, Tensor]:
    """Return the tensors of the weight at ``place`` with these outputs only, its bias among them; the format stays.

    rows: (kept,) int64, ascending. A shared factor cannot be cut for one place alone: ``KeyError``, to be refused by the recipe before
    """
    done = _outputs(form, tensors, place, rows)
    if f"{place}.bias" in tensors:
        done[f"{place}.bias"] = tensors[f"{place}.bias"][rows]
    return done


def keep_inputs(form: Format, tensors: Mapping[str, Tensor], place: str, columns: Tensor, fold: Tensor | None = None) -> dict[str, Tensor]:
    """Return the tensors of the weight at ``place`` with these inputs only, its bias among them; the format stays.

    columns: (kept,) int64, ascending; fold: (inputs, kept) what each kept input takes over from all of them, used where the factor that
    reads the inputs is dense; sparse and int8 ones just lose the columns
    """
    done = _inputs(form, tensors, place, columns, fold)
    if f"{place}.bias" in tensors:
        done[f"{place}.bias"] = tensors[f"{place}.bias"]
    return done


def keep_inputs_fitted(encoder: Encoder, tensors: Mapping[str, Tensor], place: str, kept: Tensor, moments: Moments) -> dict[str, Tensor]:
    """Return ``tensors`` with the weight at ``place`` reading the kept inputs only, refitted to give the same outputs where it can be.

    kept: (kept,) int64, ascending; moments: of its inputs. What the removed inputs add on average moves into the bias.
    """
    form = encoder.config.format(place)
    fold = folding(moments.covariance, kept) if reads_dense(form) else None
    new = keep_inputs(form, linear_tensors(tensors, place), place, kept, fold)
    if f"{place}.bias" in new:
        rest = moments.mean.clone()
        if fold is None:
            rest[kept] = 0
        else:
            rest = rest - fold @ rest[kept]
        new[f"{place}.bias"] = (new[f"{place}.bias"].double() + encoder.linear(place).dense().detach().double() @ rest).float()
    return with_linear(tensors, place, new)


def reads_dense(form: Format) -> bool:
    """Whether the factors that read the inputs are dense, so that removed inputs can be folded into kept ones."""
    match form:
        case Chain(parts):
            return reads_dense(parts[0])
        case Sum(parts):
            return all(reads_dense(part) for part in parts)
        case _:
            return isinstance(form, Dense)


def _outputs(form: Format, tensors: Mapping[str, Tensor], place: str, rows: Tensor) -> dict[str, Tensor]:
    match form:
        case Dense():
            return {f"{place}.weight": tensors[f"{place}.weight"][rows]}
        case Int8():
            return {f"{place}.codes": tensors[f"{place}.codes"][rows], f"{place}.scales": tensors[f"{place}.scales"][rows]}
        case Diagonal():
            return {f"{place}.weight": tensors[f"{place}.weight"][rows]}
        case Sparse():
            return sparse_tensors(_unpacked(tensors, place)[rows], place)
        case Chain(parts):
            *early, last = enumerate(parts)
            before = {name: tensor for number, part in early for name, tensor in _all(part, tensors, f"{place}.{number}").items()}
            return {**before, **_outputs(last[1], tensors, f"{place}.{last[0]}", rows)}
        case Sum(parts):
            pieces = [_outputs(part, tensors, f"{place}.{number}", rows) for number, part in enumerate(parts)]
            return {name: tensor for piece in pieces for name, tensor in piece.items()}
        case Shared(name):
            raise KeyError(name)


def _inputs(form: Format, tensors: Mapping[str, Tensor], place: str, columns: Tensor, fold: Tensor | None) -> dict[str, Tensor]:
    match form:
        case Dense():
            weight = tensors[f"{place}.weight"]
            return {f"{place}.weight": weight[:, columns] if fold is None else (weight.double() @ fold).float()}
        case Int8():
            return {f"{place}.codes": tensors[f"{place}.codes"][:, columns].contiguous(), f"{place}.scales": tensors[f"{place}.scales"]}
        case Diagonal():
            return {f"{place}.weight": tensors[f"{place}.weight"][columns]}
        case Sparse():
            return sparse_tensors(_unpacked(tensors, place)[:, columns], place)
        case Chain(parts):
            # diagonals hand their inputs on, so that the matrix behind them loses the same ones
            first = next((number for number, part in enumerate(parts) if not isinstance(part, Diagonal)), len(parts) - 1)
            kept: dict[str, Tensor] = {}
            for number, part in enumerate(parts):
                inner = f"{place}.{number}"
                kept |= _inputs(part, tensors, inner, columns, fold) if number <= first else _all(part, tensors, inner)
            return kept
        case Sum(parts):
            pieces = [_inputs(part, tensors, f"{place}.{number}", columns, fold) for number, part in enumerate(parts)]
            return {name: tensor for piece in pieces for name, tensor in piece.items()}
        case Shared(name):
            raise KeyError(name)


def _all(form: Format, tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(place + ".")} if not isinstance(form, Shared) else {}


def _unpacked(tensors: Mapping[str, Tensor], place: str) -> Tensor:
    return unpack_sparse(tensors[f"{place}.mask"], tensors[f"{place}.values"], tensors[f"{place}.extent"])


def folding(second: Tensor, kept: Tensor, damping: float = 1e-4) -> Tensor:
    """Return the least-squares map that rebuilds all inputs from the kept ones: (inputs, kept) float64.

    second: (inputs, inputs) float64, the inputs' second moments about their mean; kept: (kept,) int64. The kept inputs stand for
    themselves and take over what they predict of the others, C[:, S] (C[S, S] + λ)⁻¹ with λ a share of the mean variance. The closed
    form of He, Zhang & Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168).
    """
    inner = second[kept][:, kept]
    damped = inner + (damping * float(second.diagonal().mean()) + 1e-30) * torch.eye(len(kept), dtype=second.dtype)
    fold = torch.linalg.solve(damped, second[kept]).T
    fold[kept] = torch.eye(len(kept), dtype=second.dtype)
    return fold

"""Fine-tuning refuses what cannot be taught before it begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.examples import TrainingSide
from compress_rec.teacher import Teacher
from compress_rec.training import FitSettings, fit
from compress_rec.trial import Catalogue
from tests.models import small_texts, small_variant


def test_a_teacher_of_other_dimensions_is_refused():
    count = 6
    shelf = Catalogue(tuple(map(str, range(count))), small_texts(count), torch.zeros(count, dtype=torch.bool), torch.ones(count).long())
    side = TrainingSide(shelf, [np.arange(count), np.arange(count)])
    teacher = Teacher(torch.eye(count), torch.eye(count), torch.ones(3), 10.0)
    wanted = (
        "the text model's vectors have 5 dimensions and the teacher's 6: give 'dimensions' of \\[fit\\] and \\[teacher\\] the same value"
    )
    with pytest.raises(CompressRecError, match=wanted):
        fit(small_variant().towers, side, lambda towers: 0.0, FitSettings(dimensions=5), teacher)
    steps = FitSettings(dimensions=6, steps=1, histories=0)
    fitted = fit(small_variant().towers, side, lambda towers: 0.0, steps, teacher)
    assert fitted.towers.encode(small_texts(2)).shape == (2, 6)

"""Results of the pipeline for an image with several objects."""

import pickle

import pytest
import torch
from mattes import BOX, OTHER_BOX, TOLERANCE
from photo_files import make_photo

from fclm_hf import ReferringMattingPipeline, pipeline_results_fclm


def test_results_of_several_objects_are_made_on_access(
    pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = pipeline_results_fclm.make_cutout
    monkeypatch.setattr(pipeline_results_fclm, "make_cutout", lambda *args: calls.append(1) or original(*args))
    results = pipe(make_photo(), input_boxes=[BOX, OTHER_BOX])
    assert isinstance(results, list)
    assert len(results) == 2
    assert not calls
    first, second = results
    assert len(calls) == 2
    alone = pipe(make_photo(), input_boxes=OTHER_BOX)
    for same in (second, results[1], results[-1], next(reversed(results)), results[1:][0], results.copy()[1]):
        torch.testing.assert_close(same["predicted_alpha"], alone["predicted_alpha"], rtol=0, atol=TOLERANCE)
    copies = pickle.loads(pickle.dumps(results))
    assert copies[0]["alpha"].tobytes() == first["alpha"].tobytes()
    assert results.pop(0)["alpha"].tobytes() == first["alpha"].tobytes()
    assert len(results) == 1

"""Results of the pipeline for an image with several objects."""

import pickle

import pytest
import torch
from mattes import BOX, OTHER_BOX, TOLERANCE
from photo_files import make_photo

from fclm_hf import ReferringMattingPipeline, pipeline_fclm, pipeline_results_fclm


def test_results_of_several_objects_are_made_on_access(
    pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = pipeline_results_fclm.make_cutout
    monkeypatch.setattr(pipeline_results_fclm, "make_cutout", lambda *args: calls.append(1) or original(*args))
    monkeypatch.setattr(pipeline_fclm, "_BYTES_OF_RESULTS", 2 * 50 * 40 * 9 - 1)
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
    for joined in (results * 2, 2 * results, [first] + results, results + [first]):  # noqa: RUF005
        assert all(isinstance(each, dict) for each in joined)
        assert len(joined) in (3, 4)
    results.sort(
        key=lambda result: float((result["predicted_alpha"] - first["predicted_alpha"]).abs().max()), reverse=True
    )
    assert [each["alpha"].tobytes() for each in results] == [each["alpha"].tobytes() for each in (second, first)]
    assert results.pop(1)["alpha"].tobytes() == first["alpha"].tobytes()
    assert len(results) == 1


def test_what_is_added_to_results_stays(pipe: ReferringMattingPipeline) -> None:
    results = pipe(make_photo(), input_boxes=[BOX, OTHER_BOX])
    assert type(results) is list
    for number, result in enumerate(results):
        result["label"] = number
    assert [result["label"] for result in results] == [0, 1]

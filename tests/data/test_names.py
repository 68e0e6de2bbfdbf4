"""Names of release 0.1: renamed ones work with a warning, removed ones say what to use instead."""

import numpy as np
import pytest

import fclm_hf.data as data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Backoff", "RetryPolicy"),
        ("FaultCounter", "InvalidSampleCounter"),
        ("FaultReason", "InvalidReason"),
        ("FaultySampleError", "InvalidSampleError"),
        ("TooManyFaultsError", "TooManyInvalidSamplesError"),
        ("add_strands", "add_hair"),
    ],
)
def test_renamed_objects_are_found(old: str, new: str) -> None:
    with pytest.warns(FutureWarning, match=f"fclm_hf.data.{old} is deprecated .* use {new}"):
        assert getattr(data, old) is getattr(data, new)
    assert old not in data.__all__


@pytest.mark.parametrize("name", ["Foregrounds", "Backgrounds", "ComposedBatches"])
def test_removed_objects_say_what_to_use(name: str) -> None:
    with pytest.raises(
        AttributeError, match=rf"fclm_hf\.data\.{name} was removed in 0\.2\.0: .*(open_source|StreamLoader)"
    ):
        getattr(data, name)
    assert name not in data.__all__


def test_renamed_arguments_are_accepted() -> None:
    pixels, alpha = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32)
    with pytest.warns(FutureWarning, match="use colors"):
        foreground = data.Foreground(colours=pixels, alpha=alpha, names=("dot",))  # codespell:ignore colours
    with pytest.warns(FutureWarning, match="use colors"):
        assert foreground.colours is foreground.colors is pixels  # codespell:ignore colours
    with pytest.warns(FutureWarning, match="use (max_retries|initial_delay|max_delay)"):
        policy = data.RetryPolicy(retries=1, first=2.0, longest=3.0)
    assert (policy.max_retries, policy.initial_delay, policy.max_delay) == (1, 2.0, 3.0)
    with pytest.warns(FutureWarning):
        pairs = data.PairSettings(whole_photo=0.5, max_fault_share=0.1, min_fault_count=7, backoff=policy)
    assert pairs == data.PairSettings(whole_photo_prob=0.5, max_invalid_fraction=0.1, min_sample_count=7, retry=policy)
    with pytest.warns(FutureWarning, match="use empty_prompt_prob"):
        assert data.BatchSettings(automatic=0.5) == data.BatchSettings(empty_prompt_prob=0.5)
    with pytest.warns(FutureWarning, match="use whole_photo_prob"):
        assert data.PairComposition([], [pixels], whole_photo=0.4).whole_photo_prob == 0.4

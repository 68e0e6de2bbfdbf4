"""What the common tests share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def short_tensors() -> Iterator[None]:
    """Print two values per axis: the mixins format every weight for a message that only a failure would show."""
    before = dict(vars(torch._tensor_str.PRINT_OPTS))
    torch.set_printoptions(threshold=0, edgeitems=1)
    yield
    vars(torch._tensor_str.PRINT_OPTS).update(before)

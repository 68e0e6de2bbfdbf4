"""Detail maps of a part of an image: the same from the outputs of the graphs as from the embeddings of PyTorch."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_config

from fclm_hf.exporters.parts import flatten_embeddings, list_image_names
from fclm_hf.modeling_fclm import FCLMImageEmbeddings
from fclm_hf.onnx import OnnxImageEmbeddings


@pytest.mark.parametrize("region", [(8, 16, 49, 60), (0, 0, 75, 91), (40, 0, 41, 8)])
@pytest.mark.parametrize("is_tensor", [True, False])
def test_crops_are_those_of_pytorch(region: tuple[int, ...], is_tensor: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    config = tiny_config()
    size1, _, size4, size8 = config.detail_hidden_sizes
    embeddings = FCLMImageEmbeddings(
        coarse_map=torch.zeros(1, 2, 3, 3),
        fine_map=torch.zeros(1, 2, 6, 6),
        semantic_map=torch.zeros(1, 2, 3, 3),
        detail_maps=(
            torch.rand(1, size4, 26, 22, generator=generator),
            torch.rand(1, size8, 13, 11, generator=generator),
        ),
        detail_basis=torch.rand(1, 4 * size1, 52, 44, generator=generator),
        pixel_mask=torch.ones(1, 1, 91, 75, dtype=torch.uint8),
        image_sizes=torch.tensor([[91, 75]]),
    )
    names, flat = list_image_names(config), flatten_embeddings(embeddings)
    values = {name: maps if is_tensor else maps.numpy() for name, maps in zip(names, flat, strict=True)}
    cropped = OnnxImageEmbeddings(**values).crop_details(*region)
    assert {type(maps) for maps in cropped} == {torch.Tensor if is_tensor else np.ndarray}
    detail4, detail8, *basis = (torch.as_tensor(maps) for maps in cropped)
    expected = embeddings.crop_details(*region)
    torch.testing.assert_close(torch.stack(basis, 1).flatten(1, 2), expected[0], rtol=0, atol=0)
    torch.testing.assert_close(detail4, expected[1], rtol=0, atol=0)
    torch.testing.assert_close(detail8, expected[2], rtol=0, atol=0)

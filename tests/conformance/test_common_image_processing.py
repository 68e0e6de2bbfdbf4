"""transformers' common image processor tests on both backends of FCLM's."""

import unittest

import numpy as np
from common_tests import load
from PIL import Image
from transformers.image_utils import ImageInput
from transformers.utils import is_torchvision_available

from fclm_hf import FCLMImageProcessorPil


common = load("test_image_processing_common")

BACKENDS = {"pil": FCLMImageProcessorPil}
if is_torchvision_available():
    from fclm_hf import FCLMImageProcessor

    BACKENDS["torchvision"] = FCLMImageProcessor


class FCLMImageProcessingTester(common.ImageProcessingTester):
    longest_edge, divisor = 96, 32

    def __init__(self, parent: unittest.TestCase, **kwargs):
        kwargs.setdefault("size", {"longest_edge": self.longest_edge})
        kwargs.setdefault("size_divisor", self.divisor)
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return BACKENDS

    def expected_output_image_shape(self, images: list[ImageInput]) -> tuple[int, int, int]:
        """Each image shrunk to the longest edge, all padded to a multiple of the divisor."""
        resized = []
        for image in images:
            if isinstance(image, Image.Image):
                sides = image.size[::-1]
            else:
                sides = image.shape[:2] if isinstance(image, np.ndarray) else image.shape[-2:]
            scale = min(1, self.longest_edge / max(sides))
            resized.append([int(side * scale + 0.5) for side in sides])
        height, width = -(np.max(resized, axis=0) // -self.divisor) * self.divisor
        return self.num_channels, height, width


class FCLMImageProcessingTest(common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = FCLMImageProcessingTester
    test_cast_dtype = True

    @unittest.skipUnless("torchvision" in BACKENDS, "torchvision is not installed")
    def test_new_models_require_torchvision_backend(self) -> None:
        super().test_new_models_require_torchvision_backend()

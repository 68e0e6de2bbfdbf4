"""transformers' common processor tests on FCLM's: image processor, CLIP tokenizer and visual prompts."""

import unittest

from common_tests import load
from tiny_model import tiny_tokenizer
from transformers import CLIPTokenizer

from fclm_hf import FCLMImageProcessorPil, FCLMProcessor


common = load("test_processing_common")


class FCLMProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = FCLMProcessor

    @classmethod
    def _setup_tokenizer(cls) -> CLIPTokenizer:
        return tiny_tokenizer()

    @classmethod
    def _setup_image_processor(cls) -> FCLMImageProcessorPil:
        return FCLMImageProcessorPil()

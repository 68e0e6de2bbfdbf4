"""transformers' common model and config tests on FCLM with a DINOv2 and with a timm backbone."""

import copy
import unittest
from typing import Any
from unittest.mock import patch

import pytest
import torch
from common_tests import load
from tiny_model import tiny_config
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.testing_utils import require_timm

from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMModel


modeling = load("test_modeling_common")
configuration = load("test_configuration_common")

BATCH, OBJECTS, SIDE = 3, 2, 32


def random_inputs(config: FCLMConfig) -> dict[str, torch.Tensor]:
    """Three images of different sizes with two objects each, clicked, boxed, masked or named, or several of these."""
    text = config.text_config
    input_ids = torch.randint(0, text.bos_token_id, (BATCH, OBJECTS, 7))
    input_ids[..., 0], input_ids[..., -1] = text.bos_token_id, text.eos_token_id
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 0] = 0
    corners = torch.rand(BATCH, OBJECTS, 2) * 10
    input_boxes = torch.cat([corners, corners + 10], dim=-1)
    input_boxes[1] = -10
    input_masks = torch.rand(BATCH, OBJECTS, SIDE, SIDE)
    input_masks[0, 1] = -1
    pixel_mask = torch.ones(BATCH, SIDE, SIDE, dtype=torch.long)
    pixel_mask[1, :, 24:] = 0
    pixel_mask[2, 20:] = 0
    return {
        "pixel_values": torch.rand(BATCH, 3, SIDE, SIDE) * pixel_mask[:, None],
        "pixel_mask": pixel_mask,
        "input_points": torch.rand(BATCH, OBJECTS, 3, 2) * 20,
        "input_labels": torch.tensor([1, 0, -10]).repeat(BATCH, OBJECTS, 1),
        "input_boxes": input_boxes,
        "input_masks": input_masks,
        "input_ids": input_ids,
        "attention_mask": attention_mask,
    }


class FCLMModelTester:
    """What the mixin asks of a model: a config, its inputs, and the sizes of the attentions and hidden states."""

    batch_size = BATCH
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 2
    seq_length = encoder_seq_length = 4 * 4 + 1  # patches of 14 pixels in an encoder input of 56, and the class token
    is_training = True

    def get_config(self) -> FCLMConfig:
        return tiny_config()

    def prepare_config_and_inputs_for_common(self) -> tuple[FCLMConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        return config, random_inputs(config)


class TimmModelTester(FCLMModelTester):
    def get_config(self) -> FCLMConfig:
        backbone = {
            "model_type": "timm_backbone",
            "backbone": "test_efficientnet",
            "out_indices": [2, 3, 4],
            "freeze_batch_norm_2d": True,
        }
        return tiny_config(backbone_config=backbone, coarse_level=1, encoder_size=64)


class FCLMModelTest(modeling.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (FCLMModel, FCLMForImageMatting)
    model_tester_class = FCLMModelTester
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True  # the mixin reads the year in a header that we do not have

    @classmethod
    def setUpClass(cls) -> None:
        # the place where the mixin looks up which classes are base models, and so have no loss
        patcher = patch.dict(MODEL_MAPPING_NAMES, fclm=FCLMModel.__name__)
        patcher.start()
        cls.addClassCleanup(patcher.stop)

    def setUp(self) -> None:
        self.model_tester = self.model_tester_class()

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = copy.deepcopy(inputs_dict)
        if return_labels and model_class is FCLMForImageMatting:
            inputs["labels"] = torch.linspace(0, 1, SIDE).expand(BATCH, OBJECTS, SIDE, SIDE)
        return inputs

    def _text_features_prepare_config_and_inputs(self) -> tuple[FCLMConfig, dict[str, torch.Tensor]]:
        # the text tower alone knows no objects
        config, inputs = super()._text_features_prepare_config_and_inputs()
        return config, {name: value[:, 0] for name, value in inputs.items()}

    def test_config(self) -> None:
        configuration.ConfigTester(self, config_class=FCLMConfig, has_text_modality=False).run_common_tests()


@require_timm
class FCLMTimmModelTest(FCLMModelTest):
    model_tester_class = TimmModelTester
    has_attentions = False  # a convolutional encoder

    @pytest.mark.slow  # it compares two names of one argument, whatever the backbone
    def test_bc_torch_dtype(self) -> None:
        super().test_bc_torch_dtype()

    @unittest.skip("TimmBackbone leaves the statistics of frozen batch norms to the checkpoint, which always has them")
    def test_init_weights_can_init_buffers(self) -> None: ...

    @unittest.skip("a timm backbone records no hidden states")
    def test_hidden_states_output(self) -> None: ...

    @unittest.skip("a timm backbone records no hidden states")
    def test_retain_grad_hidden_states_attentions(self) -> None: ...

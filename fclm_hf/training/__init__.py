"""The FCLM training method: Depth-Aware Distillation, Foreground Consistent Domain Adaptation, and the learner."""

from ..loss_fclm import coarse_mask_loss, laplacian_loss, matting_loss, segmentation_loss
from .objective.adversarial import DomainDiscriminator, adversarial_loss, dann_lambda, gradient_reversal
from .objective.distillation import DepthAwareDistillation
from .objective.learner import ForegroundConsistentLearner
from .objective.optimal_transport import foreground_transport_loss
from .objective.settings import TrainingSettings
from .objective.token_exchange import exchange_tokens
from .presets import SEEDS, TrainingPreset, load_preset, make_optimizer


__all__ = [
    "SEEDS",
    "DepthAwareDistillation",
    "DomainDiscriminator",
    "ForegroundConsistentLearner",
    "TrainingPreset",
    "TrainingSettings",
    "adversarial_loss",
    "coarse_mask_loss",
    "dann_lambda",
    "exchange_tokens",
    "foreground_transport_loss",
    "gradient_reversal",
    "laplacian_loss",
    "load_preset",
    "make_optimizer",
    "matting_loss",
    "segmentation_loss",
]

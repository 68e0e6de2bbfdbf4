"""The FCLM training method: Depth-Aware Distillation, Foreground Consistent Domain Adaptation, and the learner."""

from ..loss_fclm import laplacian_loss, matting_loss, segmentation_loss
from .adversarial import DomainDiscriminator, adversarial_loss, dann_lambda, gradient_reversal
from .distillation import DepthAwareDistillation
from .exchange import exchange_tokens
from .learner import ForegroundConsistentLearner
from .presets import SEEDS, TrainingPreset, load_preset, make_optimizer
from .settings import TrainingSettings
from .transport import foreground_transport_loss


__all__ = [
    "SEEDS",
    "DepthAwareDistillation",
    "DomainDiscriminator",
    "ForegroundConsistentLearner",
    "TrainingPreset",
    "TrainingSettings",
    "adversarial_loss",
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

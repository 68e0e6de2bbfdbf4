"""Training of FCLM: Depth-Aware Distillation and Foreground Consistent Domain Adaptation.

[`ForegroundConsistentLearner`] computes the losses of a batch for a training loop of your own; `fclm train` runs
[`~fclm_hf.training.trainer.Trainer`].
"""

from ..loss_fclm import coarse_mask_loss, laplacian_loss, matting_loss, segmentation_loss
from .objective.adversarial import DomainDiscriminator, adversarial_loss, dann_lambda, gradient_reversal
from .objective.distillation import DepthAwareDistillation
from .objective.edges import gradient_loss
from .objective.learner import ForegroundConsistentLearner
from .objective.optimal_transport import foreground_transport_loss
from .objective.semantics import SemanticTeacher, name_contrast_loss, semantic_distance
from .objective.settings import TrainingSettings
from .objective.token_exchange import exchange_tokens
from .optimization import make_optimizer
from .pretrained import SEEDS, TrainingPreset, load_preset


__all__ = [
    "SEEDS",
    "DepthAwareDistillation",
    "DomainDiscriminator",
    "ForegroundConsistentLearner",
    "SemanticTeacher",
    "TrainingPreset",
    "TrainingSettings",
    "adversarial_loss",
    "coarse_mask_loss",
    "dann_lambda",
    "exchange_tokens",
    "foreground_transport_loss",
    "gradient_loss",
    "gradient_reversal",
    "laplacian_loss",
    "load_preset",
    "make_optimizer",
    "matting_loss",
    "name_contrast_loss",
    "segmentation_loss",
    "semantic_distance",
]

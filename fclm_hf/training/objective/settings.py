"""Options of the FCLM training method."""

from dataclasses import dataclass

from .distillation import DISTILLATION_IMAGES
from .optimal_transport import MIN_EPSILON


# option -> batch keys that reach the model, one option for each row of Table 6
PROMPT_KEYS = {
    "text": ("input_ids", "attention_mask"),
    "point": ("input_points", "input_labels"),
    "box": ("input_boxes",),
    "all": ("input_ids", "attention_mask", "input_points", "input_labels", "input_boxes", "input_masks"),
}
ALIGNMENTS = ("none", "adversarial", "transport", "full")
EXCHANGE_READERS = ("discriminator", "transport", "decoder")


@dataclass
class TrainingSettings:
    """Options of [`ForegroundConsistentLearner`]. The defaults are the paper's, or explained in README.md beside this.

    Args:
        distillation: a row of Table 4: "none", "vanilla", "foreground_a", "foreground_b", "foreground" or "full".
        alignment: a row of Table 5: "none", "adversarial", "transport" or "full".
        prompts: a row of Table 6: "text", "point", "box", or "all" that the batch holds.
        click_rounds: most clicks that are added to an object's prompts in training, each in the middle of the largest
            error, with the matte before them as a mask prompt; each step draws a number of them. Needs prompts "all".
        kd_weight, adv_weight, ot_weight, head_weight: weights of Eq. 9.
        feature_level: which of the encoder's feature maps is F_S; the last one by default.
        depth_threshold: delta of Eq. 2.
        meta_hidden_size: of the meta-nets; `None` for the student's width.
        teacher_size: side in pixels of the teacher's input; `None` for about the student's.
        discriminator_hidden_size: of the domain discriminator.
        pooled_discriminator: it judges the mean token of an image instead of each token.
        exchange_ratio: share of tokens that are exchanged where the adversarial loss is on; 0 for none.
        exchange_for: who sees the exchanged tokens: any of "discriminator", "transport", "decoder".
        transport_epsilon, transport_iterations, transport_max_tokens: see [`foreground_transport_loss`].
        foreground_threshold: a token is foreground when the mean alpha of its patch is above this.
        image_mean, image_std: of the image processor that makes `pixel_values`; the teacher's are converted from them.

    Raises:
        ValueError: an option that is not accepted, by name.
    """

    distillation: str = "full"
    alignment: str = "full"
    prompts: str = "all"
    click_rounds: int = 0
    kd_weight: float = 1.0
    adv_weight: float = 1.0
    ot_weight: float = 1.0
    head_weight: float = 1.0
    feature_level: int = -1
    depth_threshold: float = 0.25
    meta_hidden_size: int | None = None
    teacher_size: int | None = None
    discriminator_hidden_size: int = 256
    pooled_discriminator: bool = False
    exchange_ratio: float = 0.25
    exchange_for: tuple[str, ...] = ("discriminator", "decoder")
    transport_epsilon: float = 0.05
    transport_iterations: int = 100
    transport_max_tokens: int | None = 2048
    foreground_threshold: float = 0.0
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for name, accepted in (
            ("distillation", tuple(DISTILLATION_IMAGES)),
            ("alignment", ALIGNMENTS),
            ("prompts", tuple(PROMPT_KEYS)),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}.")
        if unknown := set(self.exchange_for) - set(EXCHANGE_READERS):
            raise ValueError(f"exchange_for may name {EXCHANGE_READERS}, got {sorted(unknown)}.")
        if self.click_rounds < 0:
            raise ValueError(f"click_rounds must be at least 0, got {self.click_rounds}.")
        if self.click_rounds and self.prompts != "all":
            raise ValueError(f'click_rounds needs prompts "all", got {self.prompts!r}.')
        if not 0 <= self.exchange_ratio <= 1:
            raise ValueError(f"exchange_ratio must be in [0, 1], got {self.exchange_ratio}.")
        if self.transport_epsilon < MIN_EPSILON:
            raise ValueError(f"transport_epsilon must be at least {MIN_EPSILON}, got {self.transport_epsilon}.")
        if not 0 < self.depth_threshold < 1:
            raise ValueError(f"depth_threshold must be between 0 and 1, got {self.depth_threshold}.")
        for name, least in (
            ("discriminator_hidden_size", 1),
            ("meta_hidden_size", 1),
            ("transport_iterations", 1),
            ("transport_max_tokens", 2),
        ):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        for name in ("kd_weight", "adv_weight", "ot_weight", "head_weight", "foreground_threshold"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")

    @property
    def adversarial(self) -> bool:
        return self.alignment in ("adversarial", "full")

    @property
    def transport(self) -> bool:
        return self.alignment in ("transport", "full")


__all__ = ["PROMPT_KEYS", "TrainingSettings"]

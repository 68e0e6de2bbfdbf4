"""Settings of the training objective."""

from dataclasses import dataclass


# mode -> images whose features are distilled, one mode for each row of Table 4
DISTILLATION_IMAGES = {
    "none": "",
    "vanilla": "ab",
    "foreground_a": "a",
    "foreground_b": "b",
    "foreground": "ab",
    "full": "ab",
}
ALIGNMENTS = ("none", "adversarial", "transport", "full")  # the rows of Table 5
# prompts -> model inputs taken from the batch, one entry for each row of Table 6
PROMPT_INPUTS = {
    "text": ("input_ids", "attention_mask"),
    "point": ("input_points", "input_labels"),
    "box": ("input_boxes",),
    "all": ("input_ids", "attention_mask", "input_points", "input_labels", "input_boxes", "input_masks"),
}
EXCHANGE_READERS = ("discriminator", "transport", "decoder")
MIN_EPSILON = 0.005  # below it the transport plan is not accurate in fp32


@dataclass
class TrainingSettings:
    """Settings of [`ForegroundConsistentLearner`]. The defaults are the paper's, or explained in docs/reproduction.md.

    Args:
        distillation: Row of Table 4: `"none"`, `"vanilla"`, `"foreground_a"`, `"foreground_b"`, `"foreground"` or
            `"full"`.
        alignment: Row of Table 5: `"none"`, `"adversarial"`, `"transport"` or `"full"`.
        prompts: Row of Table 6: `"text"`, `"point"`, `"box"`, or `"all"` that the batch holds.
        click_rounds: Maximum number of clicks that are added to prompts in training, each in the middle of the largest
            error, with the matte before it as a mask prompt. Each step draws a number. Requires prompts `"all"`.
        look_share: Share of the steps, in [0, 1], in which the model also takes a second look, as inference does: at
            `config.refinement_size`, with its first matte as a mask prompt and mostly its box. Requires prompts
            `"all"` and a model with that size.
        tile_share: Share of the steps, in [0, 1], in which it also mattes windows of `config.tile_size` at full size
            around soft edges, by an earlier matte, a blurred alpha, or a trimap alone. Requires prompts `"all"`, a
            model with both sizes, and images larger than a window.
        kd_weight: Weight of the distillation loss in Eq. 9.
        adv_weight: Weight of the adversarial loss in Eq. 9.
        ot_weight: Weight of the transport loss in Eq. 9.
        head_weight: Weight of the matting or segmentation loss in Eq. 9.
        name_weight: Weight of the contrast of named regions among names, see [`name_contrast_loss`]; 0 disables it. The
            semantic head then learns even if the text tower is frozen. Requires a model with a semantic head.
        semantic_weight: Weight of the loss that keeps the semantic map near that of a frozen model, by default the one
            that training starts from, see [`semantic_distance`]; 0 disables it. Requires a model with a semantic head.
        gradient_weight: Weight of the loss on the gradients of mattes, see [`gradient_loss`]; 0 disables it.
        feature_level: Index of the backbone feature map that serves as F_S; the last one by default.
        depth_threshold: Threshold delta of Eq. 2 on depth in [0, 1].
        meta_hidden_size: Hidden size of the meta-nets. Default: the number of channels of F_S.
        teacher_size: Side length of the teacher's input in pixels, a multiple of its patch size. Default: the multiple
            nearest to that of the student.
        discriminator_hidden_size: Hidden size of the domain discriminator.
        pooled_discriminator: Whether the discriminator sees the mean token of an image instead of each token.
        exchange_ratio: Fraction of the tokens that A and B exchange if the adversarial loss is on; 0 disables it.
        exchange_for: Parts that see the exchanged tokens: any of `"discriminator"`, `"transport"` and `"decoder"`.
        transport_epsilon: Entropy weight of the transport loss, see [`foreground_transport_loss`].
        transport_iterations: Iterations of the transport loss, see [`foreground_transport_loss`].
        transport_max_tokens: Maximum number of tokens in the transport loss, see [`foreground_transport_loss`].
        foreground_threshold: A token is foreground if the mean alpha of its patch exceeds this value.
        image_mean: Mean of the image processor that makes `pixel_values`; the teacher's input is derived with it.
        image_std: Standard deviation of that image processor.

    Raises:
        ValueError: If a value is not accepted. The message names the field.

    Example:
        >>> from fclm_hf.training import TrainingSettings
        >>> settings = TrainingSettings(distillation="none", alignment="transport")
        >>> settings.adversarial, settings.transport
        (False, True)
    """

    distillation: str = "full"
    alignment: str = "full"
    prompts: str = "all"
    click_rounds: int = 0
    look_share: float = 0.0
    tile_share: float = 0.0
    kd_weight: float = 1.0
    adv_weight: float = 1.0
    ot_weight: float = 1.0
    head_weight: float = 1.0
    name_weight: float = 0.0
    semantic_weight: float = 0.0
    gradient_weight: float = 0.0
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
        self._check_choices()
        for name in ("click_rounds", "look_share", "tile_share"):
            if getattr(self, name) > 0 and self.prompts != "all":
                raise ValueError(f'{name} requires prompts "all", got {self.prompts!r}.')
        for name in ("exchange_ratio", "look_share", "tile_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.depth_threshold < 1:
            raise ValueError(f"depth_threshold must be between 0 and 1, got {self.depth_threshold}.")
        for name, minimum in (
            ("transport_epsilon", MIN_EPSILON),
            ("click_rounds", 0),
            ("discriminator_hidden_size", 1),
            ("meta_hidden_size", 1),
            ("transport_iterations", 1),
            ("transport_max_tokens", 2),
            *((name, 0) for name in ("kd_weight", "adv_weight", "ot_weight", "head_weight", "foreground_threshold")),
            *((name, 0) for name in ("name_weight", "semantic_weight", "gradient_weight")),
        ):
            if (value := getattr(self, name)) is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}.")

    def _check_choices(self) -> None:
        """Check the fields that name one of several options."""
        for name, accepted in (
            ("distillation", tuple(DISTILLATION_IMAGES)),
            ("alignment", ALIGNMENTS),
            ("prompts", tuple(PROMPT_INPUTS)),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}.")
        if unknown := set(self.exchange_for) - set(EXCHANGE_READERS):
            raise ValueError(f"exchange_for must name any of {EXCHANGE_READERS}, got {sorted(unknown)}.")

    @property
    def adversarial(self) -> bool:
        """Whether the adversarial loss is on."""
        return self.alignment in ("adversarial", "full")

    @property
    def transport(self) -> bool:
        """Whether the transport loss is on."""
        return self.alignment in ("transport", "full")


__all__ = ["ALIGNMENTS", "DISTILLATION_IMAGES", "EXCHANGE_READERS", "MIN_EPSILON", "PROMPT_INPUTS", "TrainingSettings"]

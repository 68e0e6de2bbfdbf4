"""The FCLM training method in one module: student, teacher, meta-nets and discriminator; a batch in, losses out."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import DepthAnythingForDepthEstimation

from ...modeling_fclm import FCLMForImageMatting, find_image_sizes
from .adversarial import DomainDiscriminator, adversarial_loss, dann_lambda, domain_accuracy, gradient_reversal
from .distillation import DISTILLATION_IMAGES, DepthAwareDistillation
from .optimal_transport import foreground_transport_loss
from .settings import PROMPT_KEYS, TrainingSettings
from .teacher import DepthTeacher
from .token_exchange import FeatureMaps, exchange_tokens


def _to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(batch, channels, height, width) -> (batch, height * width, channels)."""
    return maps.flatten(2).transpose(1, 2)


def _split(maps: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
    halves = [level.chunk(2) for level in maps]
    return tuple(a for a, _ in halves), tuple(b for _, b in halves)


class ForegroundConsistentLearner(nn.Module):
    """Everything of the training objective (Eq. 9) around a student; only the student is saved and shipped.

    `student.save_pretrained` writes the model. What else training needs to go on (meta-nets, discriminator, progress)
    is in [`~ForegroundConsistentLearner.auxiliary_state_dict`]; the teacher is in neither.

    Args:
        student: the model to train.
        teacher: Depth-Anything, frozen; needed unless `settings.distillation` is "none".
        settings: options and switches; default the paper's.

    Attributes:
        progress: share of the training that is done, which sets the strength of the gradient reversal. It is 1, full
            strength, until [`~ForegroundConsistentLearner.set_progress`] is called.

    Raises:
        ValueError: no teacher where one is needed, or `settings.feature_level` that the encoder does not have.
    """

    def __init__(
        self,
        student: FCLMForImageMatting,
        teacher: DepthAnythingForDepthEstimation | None = None,
        settings: TrainingSettings | None = None,
    ):
        super().__init__()
        settings = settings or TrainingSettings()
        self.settings = settings
        self.student = student
        widths = list(student.model.backbone.channels)
        if not -len(widths) <= settings.feature_level < len(widths):
            raise ValueError(f"feature_level {settings.feature_level}: the encoder has {len(widths)} feature maps.")
        width = widths[settings.feature_level]
        self.teacher = self.distillation = self.discriminator = None
        if settings.distillation != "none":
            if teacher is None:
                raise ValueError(f'distillation {settings.distillation!r} needs a teacher; "none" does without.')
            self.teacher = DepthTeacher(teacher, settings.image_mean, settings.image_std, settings.teacher_size)
            self.distillation = DepthAwareDistillation(
                width,
                self.teacher.channels,
                settings.distillation,
                settings.depth_threshold,
                settings.meta_hidden_size,
            )
        if settings.adversarial:
            self.discriminator = DomainDiscriminator(width, settings.discriminator_hidden_size)
        self.register_buffer("progress", torch.ones(()))

    def set_progress(self, progress: float) -> None:
        """Share of the training that is done, in [0, 1]; call it before each step."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {progress}.")
        self.progress.fill_(progress)

    def auxiliary_state_dict(self) -> dict[str, torch.Tensor]:
        """What training needs to go on, beside the student: neither its weights nor the teacher's."""
        return {
            name: value for name, value in self.state_dict().items() if not name.startswith(("student.", "teacher."))
        }

    def load_auxiliary_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes back what [`~ForegroundConsistentLearner.auxiliary_state_dict`] gave.

        Raises:
            ValueError: `state` is of a learner with other switches.
        """
        expected = set(self.auxiliary_state_dict())
        if missing := expected ^ set(state):
            raise ValueError(
                f"The state is of a learner with other settings: {sorted(missing)} are in one of them only."
            )
        self.load_state_dict(state, strict=False)

    def _prepare_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The student's inputs for A and B, one after the other."""
        settings = self.settings
        needed = ["pixel_values_a", "pixel_values_b", "labels"]
        if settings.prompts != "all":
            needed.append(PROMPT_KEYS[settings.prompts][0])
        if missing := [name for name in needed if batch.get(name) is None]:
            raise ValueError(f"The batch lacks {', '.join(missing)} (prompts: {settings.prompts!r}).")
        shapes = {name: tuple(batch[name].shape) for name in needed[:2]}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"A and B must be pairs of the same shape, got {shapes}.")
        shared = ("pixel_mask", "labels", "object_mask", *PROMPT_KEYS[settings.prompts])
        inputs = {name: torch.cat([batch[name]] * 2) for name in shared if batch.get(name) is not None}
        if (input_ids := batch.get("input_ids")) is not None and "input_ids" in inputs:
            text = self.student.model.get_text_features(input_ids.flatten(0, -2)).pooler_output
            inputs["text_embeds"] = torch.cat([text.view(*input_ids.shape[:-1], -1)] * 2)  # once for A and B
        return {"pixel_values": torch.cat([batch["pixel_values_a"], batch["pixel_values_b"]]), **inputs}

    def _draw_masks(self, batch: Mapping[str, torch.Tensor], image_sizes: torch.Tensor) -> torch.Tensor:
        """(batch, 2, height, width) on the encoder's canvas: 1 inside the image, and alpha of the shared foreground."""
        labels, foreground = batch["labels"], batch.get("foreground")
        if foreground is None:
            if (object_mask := batch.get("object_mask")) is not None:
                labels = labels * object_mask[..., None, None]
            foreground = labels.amax(1, keepdim=True)
        return self.student.model.resize_and_pad(
            torch.cat([torch.ones_like(foreground), foreground], dim=1), image_sizes
        )

    def _find_tokens(self, masks: torch.Tensor, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Bool (batch, 1, *grid) each: tokens inside the image, and foreground tokens (Eq. 5)."""
        inside, alpha = nn.functional.adaptive_avg_pool2d(masks, tuple(grid)).split(1, dim=1)
        return inside > 0, alpha > self.settings.foreground_threshold

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses of a batch of pairs. The encoder and the teacher see each image once.

        Args:
            batch: `pixel_values_a` and `pixel_values_b` (batch, 3, height, width); `labels` (batch, objects, height,
                width), the true alphas of both; optionally `foreground` (batch, 1, height, width), the alpha of all
                that A and B share (default: the largest of `labels`); `pixel_mask`, `object_mask` and prompts as
                [`FCLMForImageMatting`] takes them, the same for A and B. Other keys are ignored.

        Returns:
            Scalars: `loss` (Eq. 9), `loss_head`, and of `loss_kd`, `loss_adv` and `loss_ot` those switched on, before
            their weights. Beside `loss_adv` comes `domain_accuracy`, the discriminator's, without a gradient.

        Raises:
            ValueError: a key that `settings` need is missing, or A and B do not match.
        """
        settings, model = self.settings, self.student.model
        inputs = self._prepare_inputs(batch)
        pixel_values, pixel_mask = inputs.pop("pixel_values"), inputs.pop("pixel_mask", None)
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        canvas = model.resize_and_pad(pixel_values, image_sizes)
        maps = tuple(model.encode(canvas).feature_maps)
        masks = self._draw_masks(batch, image_sizes[: len(image_sizes) // 2])

        exchanged = maps
        if self.discriminator is not None and settings.exchange_ratio > 0:
            coarsest = min((level.shape[-2:] for level in maps), key=lambda grid: grid.numel())
            swapped = exchange_tokens(*_split(maps), settings.exchange_ratio, self._find_tokens(masks, coarsest)[0])
            exchanged = tuple(torch.cat(level) for level in zip(*swapped, strict=True))

        def maps_for(reader: str) -> FeatureMaps:
            return exchanged if reader in settings.exchange_for else maps

        level = settings.feature_level
        inside, foreground = self._find_tokens(masks, maps[level].shape[-2:])
        losses = {}
        if self.distillation is not None:
            losses["loss_kd"] = self._distil(maps[level], canvas, inside)
        if self.discriminator is not None:
            losses["loss_adv"], losses["domain_accuracy"] = self._discriminate(maps_for("discriminator")[level], inside)
        if settings.transport:
            losses["loss_ot"] = foreground_transport_loss(
                *_to_tokens(maps_for("transport")[level]).chunk(2),
                foreground.flatten(1),
                settings.transport_epsilon,
                settings.transport_iterations,
                settings.transport_max_tokens,
            )
        embeddings = self.student.get_image_embeddings(pixel_values, pixel_mask, feature_maps=maps_for("decoder"))
        losses["loss_head"] = self.student(image_embeddings=embeddings, **inputs).loss
        weights = {
            "loss_kd": settings.kd_weight,
            "loss_adv": settings.adv_weight,
            "loss_ot": settings.ot_weight,
            "loss_head": settings.head_weight,
        }
        return {"loss": sum(weight * losses[name] for name, weight in weights.items() if name in losses), **losses}

    def _distil(self, features: torch.Tensor, canvas: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """`loss_kd`: the sum over those of A and B that the row of Table 4 distils."""
        count = features.shape[0] // 2
        images = DISTILLATION_IMAGES[self.settings.distillation]
        chosen = slice(0 if "a" in images else count, 2 * count if "b" in images else count)
        targets, depth = self.teacher(canvas[chosen])
        parts = (x.split(count) for x in (features[chosen], targets, depth))
        return sum(self.distillation(*part, valid=inside) for part in zip(*parts, strict=True))

    def _discriminate(self, features: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`loss_adv` and the discriminator's accuracy."""
        tokens, mask = _to_tokens(features), inside.flatten(1)
        if self.settings.pooled_discriminator:
            weight = mask.repeat(2, 1)[..., None].float()
            tokens, mask = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1), None
        tokens = gradient_reversal(tokens, dann_lambda(self.progress))
        logits = self.discriminator(tokens).chunk(2)
        return adversarial_loss(*logits, mask), domain_accuracy(*logits, mask)


__all__ = ["ForegroundConsistentLearner"]

"""Learner: student, teacher, meta-nets and discriminator in one module that maps a batch to its losses."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import nn
from transformers import DepthAnythingForDepthEstimation

from ...modeling_fclm import FCLMForImageMatting, FCLMImageEmbeddings, find_image_sizes
from .adversarial import DomainDiscriminator, adversarial_loss, dann_lambda, domain_accuracy, gradient_reversal
from .clicks import add_clicks
from .distillation import DepthAwareDistillation
from .edges import detach_details, gradient_loss, hold_coefficients
from .looks import (
    Window,
    check_closer_looks,
    encode_windows,
    find_true_edges,
    find_windows,
    look_again,
    make_generators,
    make_window_inputs,
)
from .optimal_transport import foreground_transport_loss
from .processes import any_process, share_choice
from .semantics import SemanticTeacher, name_contrast_loss, pool_regions, semantic_distance
from .settings import DISTILLATION_IMAGES, PROMPT_INPUTS, TrainingSettings
from .teacher import DepthTeacher
from .token_exchange import FeatureMaps, exchange_tokens


def _to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """Reshape maps of shape `(batch, channels, height, width)` to `(batch, height * width, channels)`."""
    return maps.flatten(2).transpose(1, 2)


def _split(maps: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
    """Split the maps of A and B, which are concatenated along the batch."""
    halves = [level.chunk(2) for level in maps]
    return tuple(a for a, _ in halves), tuple(b for _, b in halves)


class ForegroundConsistentLearner(nn.Module):
    """Training objective (Eq. 9) around a student model.

    `student.save_pretrained` saves the model. The rest of the trained state (meta-nets, discriminator, progress) is in
    [`~ForegroundConsistentLearner.auxiliary_state_dict`]; the frozen teacher is in neither.

    Args:
        student: Model to train.
        teacher: Depth Anything, which is frozen. Required unless `settings.distillation` is `"none"`.
        settings: Settings of the objective. Default: the paper's.
        semantic_teacher: Model whose semantic map the student's is held to if `settings.semantic_weight` is positive.
            Default: the student as it is now.

    Attributes:
        progress: Completed fraction of the training, which sets the strength of the gradient reversal. It is 1 (full
            strength) until [`~ForegroundConsistentLearner.set_progress`] is called.

    Raises:
        ValueError: If a required teacher is missing, the backbone does not have the `settings.feature_level`, a loss on
            the semantic map is on and the student or `semantic_teacher` has no such map, or the student does not take
            the closer looks that `settings` asks for.

    Example:
        >>> import torch
        >>> from fclm_hf import FCLMConfig, FCLMForImageMatting
        >>> from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings
        >>> config = FCLMConfig(
        ...     backbone_config={
        ...         "model_type": "dinov2",
        ...         "image_size": 28,
        ...         "hidden_size": 16,
        ...         "num_hidden_layers": 1,
        ...         "num_attention_heads": 2,
        ...         "out_features": ["stage1"],
        ...     },
        ...     text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 16},
        ...     encoder_size=56,
        ...     hidden_size=32,
        ...     decoder_layers=1,
        ...     decoder_attention_heads=2,
        ... )
        >>> settings = TrainingSettings(distillation="none")
        >>> learner = ForegroundConsistentLearner(FCLMForImageMatting(config), settings=settings)
        >>> batch = {
        ...     "pixel_values_a": torch.rand(1, 3, 56, 56),
        ...     "pixel_values_b": torch.rand(1, 3, 56, 56),
        ...     "labels": torch.ones(1, 1, 56, 56),
        ...     "input_boxes": torch.tensor([[[0.0, 0.0, 56.0, 56.0]]]),
        ... }
        >>> losses = learner(batch)
        >>> sorted(losses)
        ['domain_accuracy', 'loss', 'loss_adv', 'loss_head', 'loss_ot']
        >>> losses["loss"].backward()
    """

    def __init__(
        self,
        student: FCLMForImageMatting,
        teacher: DepthAnythingForDepthEstimation | None = None,
        settings: TrainingSettings | None = None,
        semantic_teacher: FCLMForImageMatting | None = None,
    ):
        super().__init__()
        settings = settings or TrainingSettings()
        check_closer_looks(student.config, settings)
        self.settings = settings
        self.student = student
        widths = list(student.model.backbone.channels)
        if not -len(widths) <= settings.feature_level < len(widths):
            raise ValueError(
                f"feature_level must index one of the {len(widths)} feature maps of the backbone, got"
                f" {settings.feature_level}."
            )
        width = widths[settings.feature_level]
        self.teacher = self.distillation = self.discriminator = None
        if settings.distillation != "none":
            if teacher is None:
                raise ValueError(f"teacher must not be None with distillation {settings.distillation!r}.")
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
        self._prepare_semantics(semantic_teacher)
        self.register_buffer("progress", torch.ones(()))

    def _prepare_semantics(self, semantic_teacher: FCLMForImageMatting | None) -> None:
        """Copy what the semantic map is held to, and let the semantic head learn if the losses on its map are on."""
        settings, student = self.settings, self.student
        self.semantic_teacher = None
        for name in ("name_weight", "semantic_weight"):
            if getattr(settings, name) and student.model.semantic_head is None:
                raise ValueError(
                    f"{name} must be 0 for a model without a semantic head, got {getattr(settings, name)}."
                )
        if settings.name_weight:
            student.model.semantic_head.requires_grad_(True)  # frozen together with the text tower
        if settings.semantic_weight:
            taught = student if semantic_teacher is None else semantic_teacher
            if taught.model.semantic_head is None:
                raise ValueError("semantic_teacher must have a semantic head, got a model without.")
            expected, found = (each.config.text_config.projection_dim for each in (student, taught))
            if found != expected:
                raise ValueError(f"semantic_teacher must have the student's projection_dim, {expected}, got {found}.")
            self.semantic_teacher = SemanticTeacher(taught)

    def set_progress(self, progress: float) -> None:
        """Set the completed fraction of the training; to be called before each step.

        Args:
            progress: Fraction in [0, 1].

        Raises:
            ValueError: If `progress` is out of range.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {progress}.")
        self.progress.fill_(progress)

    def auxiliary_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the state that training needs besides the student, without the teacher's weights."""
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(("student.", "teacher.", "semantic_teacher."))
        }

    def load_auxiliary_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore the state that [`~ForegroundConsistentLearner.auxiliary_state_dict`] returned.

        Args:
            state: The state.

        Raises:
            ValueError: If the state belongs to a learner with other settings.
        """
        expected = set(self.auxiliary_state_dict())
        if missing := expected ^ set(state):
            raise ValueError(
                f"state must be that of a learner with the same settings, only one of them has {sorted(missing)}."
            )
        self.load_state_dict(state, strict=False)

    def _prepare_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the student's inputs, with A and B concatenated along the batch."""
        settings = self.settings
        needed = ["pixel_values_a", "pixel_values_b", "labels"]
        if settings.prompts != "all":
            needed.append(PROMPT_INPUTS[settings.prompts][0])
        if settings.name_weight:
            needed += ["region_alphas", "region_names", "name_ids"]
        if missing := [name for name in needed if batch.get(name) is None]:
            found = ", ".join(batch)
            raise ValueError(f"batch must contain {', '.join(missing)} (prompts: {settings.prompts!r}), got {found}.")
        shapes = {name: tuple(batch[name].shape) for name in needed[:2]}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"pixel_values_a and pixel_values_b must have the same shape, got {shapes}.")
        shared = ("pixel_mask", "labels", "label_mask", "object_mask", *PROMPT_INPUTS[settings.prompts])
        inputs = {name: torch.cat([batch[name]] * 2) for name in shared if batch.get(name) is not None}
        if (input_ids := batch.get("input_ids")) is not None and "input_ids" in inputs:
            text = self.student.model.get_text_features(input_ids.flatten(0, -2)).pooler_output
            inputs["text_embeds"] = torch.cat([text.view(*input_ids.shape[:-1], -1)] * 2)  # A and B share their texts
        return {"pixel_values": torch.cat([batch["pixel_values_a"], batch["pixel_values_b"]]), **inputs}

    def _draw_masks(self, batch: Mapping[str, torch.Tensor], image_sizes: torch.Tensor) -> torch.Tensor:
        """Return masks of shape `(batch, 2, height, width)` on the padded encoder input.

        The first is 1 inside the image, the second the alpha of the foreground that A and B share.
        """
        labels, foreground = batch["labels"], batch.get("foreground")
        if foreground is None:
            if (object_mask := batch.get("object_mask")) is not None:
                labels = labels * object_mask[..., None, None]
            foreground = labels.amax(1, keepdim=True)
        return self.student.model.resize_and_pad(
            torch.cat([torch.ones_like(foreground), foreground], dim=1), image_sizes
        )

    def _find_tokens(self, masks: torch.Tensor, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boolean masks of shape `(batch, 1, *grid)`: tokens inside the image, and foreground tokens (Eq. 5)."""
        inside, alpha = nn.functional.adaptive_avg_pool2d(masks, tuple(grid)).split(1, dim=1)
        return inside > 0, alpha > self.settings.foreground_threshold

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compute the losses of a batch of pairs. Backbone and teacher process each image once.

        Args:
            batch: Tensors by name; other keys are ignored.

                - `pixel_values_a`, `pixel_values_b`: Images A and B of shape `(batch, 3, height, width)`.
                - `labels`: True alphas of shape `(batch, objects, height, width)`, the same for A and B.
                - `foreground` (optional): Alpha of everything that A and B share, of shape
                  `(batch, 1, height, width)`. Default: the maximum of `labels`.
                - `label_mask` (optional): False where a label is unknown, see [`FCLMForImageMatting`]. The detail path
                  does not learn from images with such pixels, as coarse masks have no edges to teach.
                - `learns_edges` (optional): Bool of shape `(batch,)`, False for pairs without true edges: neither the
                  detail path nor the layer of the matte head that predicts slopes learns from them. It replaces the
                  rule above.
                - `region_alphas`, `region_names`, `name_ids` (for `settings.name_weight`): Alphas in [0, 255] of named
                  objects, uint8 of shape `(batch, regions, height, width)`; bool of shape `(batch, regions, names)`,
                  True for the names of a region; and the tokens of all names, of shape `(names, sequence_length)`.
                - `pixel_mask`, `object_mask` and prompts as [`FCLMForImageMatting`] takes them, the same for A and B.

        Returns:
            Scalars by name: `loss` (Eq. 9), `loss_head`, and those of `loss_kd`, `loss_adv`, `loss_ot`, `loss_names`,
            `loss_semantic` and `loss_gradient` that are on, without their weights. With `loss_adv` comes
            `domain_accuracy` of the discriminator, without gradient. `loss_look` and `loss_tiles`, if they are on, are
            sums of the head loss and the loss on gradients with their weights, and 0 in a step without such looks.

        Raises:
            ValueError: If a key that the settings require is missing, or the shapes of A and B differ.
        """
        settings, model = self.settings, self.student.model
        inputs = self._prepare_inputs(batch)
        pixel_values, pixel_mask = inputs.pop("pixel_values"), inputs.pop("pixel_mask", None)
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        padded = model.resize_and_pad(pixel_values, image_sizes)
        maps = tuple(model.encode(padded).feature_maps)
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
            losses["loss_kd"] = self._distill(maps[level], padded, inside)
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
        losses |= self._compare_semantics(batch, maps[-1], padded, image_sizes)
        losses |= self._matte(batch, inputs, pixel_values, pixel_mask, maps_for("decoder"))
        weights = {
            "loss_kd": settings.kd_weight,
            "loss_adv": settings.adv_weight,
            "loss_ot": settings.ot_weight,
            "loss_head": settings.head_weight,
            "loss_names": settings.name_weight,
            "loss_semantic": settings.semantic_weight,
            "loss_gradient": settings.gradient_weight,
            "loss_look": 1.0,
            "loss_tiles": 1.0,
        }
        loss = sum(weight * losses[name] for name, weight in weights.items() if name in losses)
        if settings.prompts == "all":  # several processes wait for all gradients, also in a batch without masks
            loss = loss + 0.0 * sum(parameter.sum() for parameter in model.prompt_encoder.get_mask_parameters())
        return {"loss": loss, **losses}

    def _matte(
        self,
        batch: Mapping[str, torch.Tensor],
        inputs: dict[str, torch.Tensor],
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None,
        maps: FeatureMaps,
    ) -> dict[str, torch.Tensor]:
        """Return `loss_head`, and those of `loss_gradient`, `loss_look` and `loss_tiles` that are on."""
        settings, label_mask = self.settings, inputs.get("label_mask")
        embeddings = self.student.get_image_embeddings(pixel_values, pixel_mask, feature_maps=maps)
        holding = nullcontext()
        if (learns_edges := batch.get("learns_edges")) is not None:
            is_coarse = ~torch.cat([learns_edges] * 2)
            embeddings, holding = detach_details(embeddings, is_coarse), hold_coefficients(self.student.head, is_coarse)
        elif label_mask is not None:
            embeddings = detach_details(embeddings, ~label_mask.flatten(1).all(1))
        if settings.click_rounds and self.training:
            rounds = share_choice(int(torch.randint(settings.click_rounds + 1, ())))
            inputs = add_clicks(self.student, embeddings, inputs, rounds) if rounds else inputs
        with holding:
            alphas, losses = self._decode(embeddings, inputs)
            if settings.look_share:
                alphas, losses["loss_look"] = self._look_again(pixel_values, embeddings, inputs, alphas)
        if settings.tile_share:
            losses["loss_tiles"] = self._look_at_windows(batch, pixel_values, embeddings, inputs, alphas)
        return losses

    def _decode(
        self, embeddings: FCLMImageEmbeddings, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mattes without gradient, and `loss_head` and, if it is on, `loss_gradient`."""
        outputs = self.student(image_embeddings=embeddings, **inputs)
        losses = {"loss_head": outputs.loss}
        if self.settings.gradient_weight:
            known = embeddings.pixel_mask.bool()
            for name in ("label_mask", "object_mask"):
                if (mask := inputs.get(name)) is not None:
                    known = known & (mask if mask.dim() == 4 else mask[..., None, None]).bool()
            losses["loss_gradient"] = gradient_loss(outputs.alphas, inputs["labels"], known)
        return outputs.alphas.detach(), losses

    def _sum(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of the losses of mattes with their weights."""
        weights = {"loss_head": self.settings.head_weight, "loss_gradient": self.settings.gradient_weight}
        return sum(weights[name] * loss for name, loss in losses.items())

    def _draw_seed(self, share: float) -> int | None:
        """Return a random seed in a share of the steps, else `None`; the same in all processes."""
        if not self.training:
            return None
        seed = share_choice(int(torch.randint(2**31, ())) if torch.rand(()) < share else -1)
        return None if seed < 0 else seed

    def _look_again(
        self,
        pixel_values: torch.Tensor,
        embeddings: FCLMImageEmbeddings,
        inputs: Mapping[str, torch.Tensor],
        alphas: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mattes of a second look, without gradient, and its loss: 0 if none is taken."""
        if (seed := self._draw_seed(self.settings.look_share)) is not None:
            inputs = look_again(alphas, inputs, make_generators(seed, len(alphas) // 2))
            is_seen = inputs["object_mask"]
            if any_process(bool(is_seen.any())):
                closer = self.student.get_image_embeddings(
                    pixel_values,
                    embeddings.pixel_mask[:, 0].long(),
                    encoder_size=self.student.config.refinement_size,
                    detail_maps=(embeddings.detail_basis, *embeddings.detail_maps),
                )
                mattes, losses = self._decode(closer, inputs)
                return torch.where(is_seen[..., None, None], mattes, alphas), self._sum(losses)
        return alphas, alphas.new_zeros(())

    def _look_at_windows(
        self,
        batch: Mapping[str, torch.Tensor],
        pixel_values: torch.Tensor,
        embeddings: FCLMImageEmbeddings,
        inputs: Mapping[str, torch.Tensor],
        alphas: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of windows at full size, 0 if there are none."""
        if (seed := self._draw_seed(self.settings.tile_share)) is None:
            return alphas.new_zeros(())
        size, rngs = self.student.config.tile_size, make_generators(seed, len(alphas) // 2)
        labels, has_edges = inputs["labels"], find_true_edges(batch, inputs, embeddings.pixel_mask)
        windows = find_windows(labels, has_edges, embeddings.image_sizes, size, rngs)
        if not any_process(bool(windows)):
            return alphas.new_zeros(())
        shape = tuple(min(size, side) for side in pixel_values.shape[-2:])
        counts = bool(windows)
        windows = windows or [Window(0, 0, (0, 0, shape[1], shape[0]))]  # other processes wait for this one
        closer = encode_windows(self.student, pixel_values, embeddings, windows, size)
        inputs = make_window_inputs(windows, labels, alphas, shape, rngs)
        object_mask = torch.full((len(windows), 1), counts, device=labels.device)
        return self._sum(self._decode(closer, {**inputs, "object_mask": object_mask})[1])

    def _compare_semantics(
        self,
        batch: Mapping[str, torch.Tensor],
        features: torch.Tensor,
        padded: torch.Tensor,
        image_sizes: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return those of `loss_names` and `loss_semantic` that are on.

        Args:
            batch: See [`~ForegroundConsistentLearner.forward`].
            features: Last feature map of A and B, before tokens are exchanged.
            padded: A and B as the backbone receives them.
            image_sizes: Heights and widths of A and B, of shape `(2 * batch, 2)`.
        """
        settings, model, losses = self.settings, self.student.model, {}
        if not (settings.name_weight or settings.semantic_weight):
            return losses
        semantic_map = model.semantic_head(features)
        if settings.name_weight:
            regions = model.resize_and_pad(batch["region_alphas"].float() / 255, image_sizes[: len(image_sizes) // 2])
            pooled = pool_regions(semantic_map, torch.cat([regions] * 2))
            names = model.get_text_features(batch["name_ids"]).pooler_output
            losses["loss_names"] = name_contrast_loss(pooled, names, torch.cat([batch["region_names"]] * 2))
        if self.semantic_teacher is not None:
            losses["loss_semantic"] = semantic_distance(semantic_map, self.semantic_teacher(padded))
        return losses

    def _distill(self, features: torch.Tensor, padded: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Return `loss_kd`, summed over the images that the row of Table 4 distills."""
        count = features.shape[0] // 2
        images = DISTILLATION_IMAGES[self.settings.distillation]
        chosen = slice(0 if "a" in images else count, 2 * count if "b" in images else count)
        targets, depth = self.teacher(padded[chosen])
        parts = (x.split(count) for x in (features[chosen], targets, depth))
        return sum(self.distillation(*part, valid=inside) for part in zip(*parts, strict=True))

    def _discriminate(self, features: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `loss_adv` and the accuracy of the discriminator."""
        tokens, mask = _to_tokens(features), inside.flatten(1)
        if self.settings.pooled_discriminator:
            weight = mask.repeat(2, 1)[..., None].float()
            tokens, mask = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1), None
        tokens = gradient_reversal(tokens, dann_lambda(self.progress))
        logits = self.discriminator(tokens).chunk(2)
        return adversarial_loss(*logits, mask), domain_accuracy(*logits, mask)


__all__ = ["ForegroundConsistentLearner"]

"""MVFA: adapters in CLIP's vision tower, sentences and normal images (SPEC sections 3, 4).

The first of the methods; CLIP/adapter.py has the network, loss.py the loss. Letters: B images,
L levels, N patches, D vision width, E text width, S image side, M rows of the memory bank.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from CLIP.adapter import HEADS, MVFA
from CLIP.undrawn import Undrawn
from CLIP.weights import check_state, create_model
from dataset.catalog import ObjectInfo
from mvfa import scoring
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.features import prepare
from mvfa.forms import adapter_form, clip_arguments, objective, score_form
from mvfa.methods import catalog
from mvfa.methods.base import Images, Method, Source, State, Target
from mvfa.methods.clip_files import TEXT, load_clip, text_of
from mvfa.options import Options
from mvfa.recipe import Recipe
from mvfa.text_cache import cached_text_features


class Mvfa(Method):
    """The frozen vision tower with two trainable adapters, seg and det, after each level.

    Args:
        model: tower and adapters.
        text: text features [E, 2] of every noun, columns normal and abnormal.
        recipe: loss, scores, scaling of the images.
        target: the object that is scored: its noun, and whether it has masks.
        side: S.
        weights: file of CLIP's weights.
        score_levels: the blocks whose features are scored; empty: all.

    """

    name = catalog.MVFA

    def __init__(
        self,
        model: MVFA,
        text: Mapping[str, Tensor],
        recipe: Recipe,
        target: Target,
        side: int,
        weights: Path,
        score_levels: tuple[int, ...] = (),
    ) -> None:
        super().__init__(score_form(recipe, score_levels), side, target.masks, weights)
        self.model = model
        self.text = {noun: columns.to(self.device) for noun, columns in text.items()}
        self.noun = target.noun
        self.recipe = recipe
        self.objective = objective(recipe)
        self.compiled_stem: Callable[[Tensor], Tensor] | None = None

    def aim(self, target: Target) -> Self:
        """Score images of an object from now on."""
        self.noun = target.noun
        return super().aim(target)

    @property
    def device(self) -> torch.device:
        """The device of the vision tower."""
        return self.model.visual.class_embedding.device

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """1 + N tokens, D wide."""
        visual = self.model.visual
        return len(visual.positional_embedding), visual.width

    def features(self, images: Images) -> Tensor:
        """Compute the features before the first adapter: [B, 3, S, S] -> [B, 1 + N, D]."""
        assert isinstance(images, Tensor), "all images are S x S"
        stem = self.compiled_stem or self.model.stem
        return stem(prepare(images, self.device, self.recipe.scaling))

    def compile_network(self) -> None:
        """Compile everything after the features with torch.compile, and these on a GPU.

        On a CPU the stem's products take nearly all of its time, and there is nothing to fuse.
        """
        self.model.compile()
        if self.device.type != "cpu":
            self.compiled_stem = torch.compile(self.model.stem)

    # ---------------------------------------------------------------- training

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the adapters of each head, which has an optimizer of its own."""
        return {head: list(self.model.adapters(head).parameters()) for head in HEADS}

    def stepped(self, masked: bool) -> tuple[str, ...]:
        """Return the heads that a step moves: without masks only det (SPEC section 4)."""
        return HEADS if masked else ("det",)

    def loss(
        self, features: Tensor, labels: Tensor, masks: Tensor | None, nouns: Sequence[str]
    ) -> Tensor:
        """Return the loss of each image [B]: features [B, 1 + N, D], masks [B, S, S] or None."""
        text = torch.stack([self.text[noun] for noun in nouns])  # [B, E, 2]
        tokens = self.model(features, HEADS if masks is not None else ("det",))
        loss = self.objective.det(scoring.text_logits(tokens.det, text), labels)
        if masks is not None:
            loss = loss + self.objective.seg(scoring.text_logits(tokens.seg, text), masks)
        return loss

    def reason(self, features: Tensor) -> str:
        """Return why a loss is not finite, and what to do."""
        other = "use --precision fp32, or other weights (--clip_path)"
        if not all(columns.isfinite().all() for columns in self.text.values()):
            return f"the text features are not finite; {other}"
        if not features.isfinite().all():
            return f"the features of images are not finite; {other}"
        if not all(values.isfinite().all() for group in self.groups().values() for values in group):
            return "the adapters are not finite; lower --learning_rate"
        return super().reason(features)

    # ---------------------------------------------------------------- scores

    @property
    def embed_dim(self) -> int:
        """E, the width of the token features."""
        return self.model.embed_dim

    @property
    def bank_levels(self) -> int:
        """One a level of adapters."""
        return len(self.model.levels)

    def bank(self, features: Tensor) -> list[Tensor]:
        """Return the memory bank's rows of some images: L times [rows, E] of norm 1.

        Tokens are those of the seg head for objects with masks, else of the det head; the recipe
        says whether class tokens are among them.
        """
        head = "seg" if self.masks else "det"
        tokens = getattr(self.model(features, (head,)), head)
        return scoring.normalise_bank(tokens, self.recipe.bank_class_token)

    def bank_rows(self, image: Tensor) -> int:  # noqa: ARG002
        """Return how many rows an image adds to the memory bank: N, or 1 + N."""
        return self.feature_shape[0] - (not self.recipe.bank_class_token)

    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        """Return patch values and branch scores of a batch, by their names in Predictions.

        features [B, 1 + N, D]; bank: L times [M, E], None in zero-shot. For objects with masks maps
        and bank are of seg tokens, else of det tokens; the text score is always of det tokens.
        """
        values: dict[str, Tensor] = {}
        text = self.text[self.noun]
        fused_map = self.map_scores(few=bank is not None)
        heads = [head for head, used in (("seg", self.masks), ("det", not fused_map)) if used]
        tokens = self.model(features, heads)
        levels = self._scored_levels()
        seg = [tokens.seg[level] for level in levels] if tokens.seg else []
        det = [tokens.det[level] for level in levels] if tokens.det else []
        mapped = seg if self.masks else det
        if self.masks or maps:
            values["logits"] = scoring.text_logits(mapped, text)  # [B, L, N]
        if not fused_map:
            probability = scoring.text_logits(det, text).sigmoid()  # [B, L, N]
            pooled = scoring.image_score(probability, self.form.image_score)  # [B, L]
            values["text_scores"] = scoring.over_levels(pooled, self.form.level_reduction)  # [B]
        if bank is not None:
            rows = [bank[level] for level in levels]
            distance = scoring.memory_distance(
                mapped, rows, self.form.level_reduction, half=self.model.visual.half_on_gpu
            )  # [B, N]
            if self.masks or maps:
                values["distance"] = distance
            if not fused_map:
                values["memory_scores"] = self.form.memory_score(distance, None, self.side)
        return values

    def _scored_levels(self) -> list[int]:
        """Return the positions, among the model's levels, of those whose features are scored."""
        return [self.model.levels.index(block) for block in self.form.levels or self.model.levels]

    # ---------------------------------------------------------------- files

    def state(self) -> State:
        """Return copies of the adapter matrices by head, on the CPU."""
        state = {}
        for head, key in zip(HEADS, self.keys, strict=True):
            matrices = self.model.adapters(head).state_dict()
            state[key] = {name: value.detach().cpu().clone() for name, value in matrices.items()}
        return state

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put matrices that `state` returned back into the adapters."""
        for head, key in zip(HEADS, self.keys, strict=True):
            self.model.adapters(head).load_state_dict(dict(state[key]))

    def check(self, state: Mapping[str, Mapping[str, Tensor]], path: Path) -> State:
        """Return the adapter matrices of a checkpoint. Raises UserError unless all of them fit."""
        for head, key in zip(HEADS, self.keys, strict=True):
            expected = self.model.adapters(head).state_dict()
            check_state(state[key], expected, f"the {head} adapters of {path}")
        return {key: dict(state[key]) for key in self.keys}

    def tensors(self) -> dict[str, Tensor]:
        """Return adapters and text features, for a detector's file."""
        flat = {f"{k}.{name}": v for k, group in self.state().items() for name, v in group.items()}
        return flat | {TEXT: self.text[self.noun]}


def create(
    options: Options, env: Environment, target: ObjectInfo, generator: torch.Generator
) -> Mvfa:
    """Return the method of a script's options, its adapters new. Raises UserError."""
    clip = create_model(**clip_arguments(options, env))
    form = adapter_form(options.recipe)
    model = MVFA(clip.visual, clip.config.embed_dim, options.features_list, form, generator)
    text = cached_text_features(clip, target.noun, env.precision, options.text_cache)  # [E, 2]
    return Mvfa(
        model,
        {target.noun: text},
        options.recipe,
        target,
        options.img_size,
        clip.weight_file,
        options.score_levels,
    )


def load(settings: Settings, tensors: Mapping[str, Tensor], source: Source) -> Mvfa:
    """Return the method of a detector's file. Raises UserError unless its tensors fit."""
    clip = load_clip(settings, source)
    text = text_of(tensors, clip, source)
    with Undrawn():
        model = MVFA(
            clip.visual,
            clip.config.embed_dim,
            settings.features_list,
            adapter_form(settings.recipe),
        )
    file = clip.weight_file
    method = Mvfa(model, {settings.noun: text}, settings.recipe, settings, settings.img_size, file)
    for key, expected in method.state().items():
        prefix = f"{key}."
        own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        check_state(own, expected, f"the {key} of {source.path}")
        getattr(model, key).load_state_dict(own, assign=True)
    return method

"""Plain CLIP as a method: the frozen tower as MVFA uses it, without adapters or training.

The text branch reads the tokens after the last block, projected as CLIP projects them; the memory
branch reads the hidden tokens after the blocks that adapters would follow.

Letters: B images, L levels, N patches, D vision width, E joint width, M rows of the memory bank.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.adapter import check_levels
from CLIP.model import CLIP
from CLIP.weights import create_model
from dataset.catalog import ObjectInfo
from mvfa import scoring
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.features import prepare
from mvfa.forms import clip_arguments, score_form
from mvfa.methods import catalog
from mvfa.methods.base import Images, Method, Source
from mvfa.methods.clip_files import TEXT, load_clip, text_of
from mvfa.options import Options
from mvfa.recipe import Recipe
from mvfa.score_form import ScoreForm
from mvfa.text_cache import cached_text_features


class PlainClip(Method):
    """CLIP's own vision tower; nothing is trained.

    Args:
        clip: the frozen network, of which the vision tower is kept.
        text: text features [E, 2] of the object's noun.
        levels: numbers of the blocks whose tokens the memory branch reads, rising, from 1.
        recipe: its input scaling and its class tokens in the bank are used here.
        form: how patch values become maps and scores.
        side: S, at which maps are scored.
        masks: whether the object that is scored has masks.

    """

    name = catalog.CLIP

    def __init__(
        self,
        clip: CLIP,
        text: Tensor,
        levels: Sequence[int],
        recipe: Recipe,
        form: ScoreForm,
        side: int,
        masks: bool,
    ) -> None:
        """Raise UserError if the levels are not rising block numbers of the tower."""
        super().__init__(form, side, masks, clip.weight_file)
        check_levels(levels, clip.visual.layers)
        self.visual = clip.visual
        self.text = text.to(clip.device)
        self.levels = tuple(levels)
        self.scored = [self.levels.index(block) for block in form.levels or self.levels]
        self.scaling = recipe.scaling
        self.bank_class_token = recipe.bank_class_token

    @property
    def device(self) -> torch.device:
        """The device of the vision tower."""
        return self.visual.class_embedding.device

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """[L + 1, 1 + N, D]: hidden tokens after each level, then those after the last block."""
        return (len(self.levels) + 1, len(self.visual.positional_embedding), self.visual.width)

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Compute the hidden tokens of images [B, 3, S, S]: [B, L + 1, 1 + N, D] float32."""
        assert isinstance(images, Tensor), "images of one size"
        x = self.visual.embed(prepare(images, self.device, self.scaling))  # [B, 1 + N, D]
        taps = []
        done = 0
        for block in (*self.levels, self.visual.layers):
            x = self.visual.transformer(x, done, block)
            taps.append(x)
            done = block
        return torch.stack(taps, dim=1)

    @property
    def embed_dim(self) -> int:
        """D, the width of the tokens in the memory bank."""
        return self.visual.width

    @property
    def bank_levels(self) -> int:
        """One a level."""
        return len(self.levels)

    def bank(self, features: Tensor) -> list[Tensor]:
        """Return the tokens of images [B, L + 1, 1 + N, D] as bank rows: L times [rows, D]."""
        levels = features[:, :-1].unbind(dim=1)  # L times [B, 1 + N, D]
        return scoring.normalise_bank(levels, self.bank_class_token)

    def bank_rows(self, image: Tensor) -> int:  # noqa: ARG002  # all images are S x S
        """Return how many rows an image adds to the memory bank: N, or 1 + N."""
        return self.feature_shape[1] - (not self.bank_class_token)

    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        """Return patch values and branch scores of features [B, L + 1, 1 + N, D] by their names.

        bank: L times [M, D], None in zero-shot. The text score is CLIP's own decision: the
        probability of "abnormal" that the class token gives.
        """
        values: dict[str, Tensor] = {}
        fused_map = self.map_scores(few=bank is not None)
        mapped = self.masks or maps
        tokens = self.visual.ln_post(features[:, -1]) @ self.visual.proj  # [B, 1 + N, E]
        if mapped:
            values["logits"] = scoring.text_logits([tokens], self.text)  # [B, 1, N]
        if not fused_map:
            values["text_scores"] = class_logit(tokens, self.text).sigmoid()  # [B]
        if bank is not None:
            levels = [features[:, level] for level in self.scored]
            rows = [bank[level] for level in self.scored]
            distance = scoring.memory_distance(
                levels, rows, self.form.level_reduction, half=self.visual.half_on_gpu
            )  # [B, N]
            if mapped:
                values["distance"] = distance
            if not fused_map:
                values["memory_scores"] = self.form.memory_score(distance, None, self.side)  # [B]
        return values

    def tensors(self) -> dict[str, Tensor]:
        """Return the text features [E, 2]."""
        return {TEXT: self.text}


def class_logit(tokens: Tensor, text: Tensor) -> Tensor:
    """Return the abnormal minus the normal text logit of each class token: [B, 1 + N, E] -> [B].

    `text` [E, 2], columns normal and abnormal.
    """
    cosines = F.normalize(tokens[:, 0].float(), dim=-1) @ text  # [B, 2]
    return scoring.LOGIT_SCALE * (cosines[:, 1] - cosines[:, 0])


def create(
    options: Options,
    env: Environment,
    target: ObjectInfo,
    generator: torch.Generator,  # noqa: ARG001  # nothing is drawn
) -> PlainClip:
    """Load CLIP and the text features of an object for a script. Raises UserError."""
    clip = create_model(**clip_arguments(options, env))
    return PlainClip(
        clip,
        cached_text_features(clip, target.noun, env.precision, options.text_cache),
        options.features_list,
        options.recipe,
        score_form(options.recipe, options.score_levels),
        options.img_size,
        target.masks,
    )


def load(settings: Settings, tensors: Mapping[str, Tensor], source: Source) -> PlainClip:
    """Load the method of a detector. Raises UserError for text features of another shape."""
    clip = load_clip(settings, source)
    text = text_of(tensors, clip, source)
    return PlainClip(
        clip,
        text,
        settings.features_list,
        settings.recipe,
        score_form(settings.recipe),
        settings.img_size,
        settings.masks,
    )

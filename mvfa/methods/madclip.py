"""MadCLIP (arXiv 2506.23810): two adapter sets, normal and abnormal, and learned contexts.

The vision tower's tokens are read at four levels and nothing is mixed back into them, so they are
the same in every epoch. Letters: B images, S image side, L levels, N patches, D vision width,
E joint width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from CLIP.adapter import check_levels
from CLIP.model import CLIP
from CLIP.undrawn import Undrawn
from CLIP.weights import check_state, create_model
from dataset.catalog import ObjectInfo
from dataset.medical_few import Support
from dataset.shots import Shots
from errors import UserError
from mvfa import scoring
from mvfa.detector_description import damaged
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.features import prepare
from mvfa.forms import clip_arguments
from mvfa.methods import catalog
from mvfa.methods.base import Images, Method, Source, State
from mvfa.methods.clip_files import TEXT, load_clip, text_of
from mvfa.methods.madclip_adapters import LevelAdapter, det_loss, seg_loss
from mvfa.methods.madclip_shots import MadclipVersions
from mvfa.methods.madclip_text import LearnedText, check_tower, without_tower
from mvfa.options import Options
from mvfa.score_form import ScoreForm

FORM = ScoreForm("mean", "sum")
ADAPTERS = ("normal_det_adapters", "abnormal_det_adapters")  # in the order of CLASSES
FIXED = "text_features_fix"  # instead of PROMPTS: text features that were not trained


class MadCLIP(Method):
    """MadCLIP for one object.

    Args:
        clip: the frozen network.
        levels: numbers of the blocks that adapters read, rising, counted from 1.
        side: S, at which maps are scored.
        masks: whether the object that is scored has masks.
        noun: of the object, whose contexts are trained.
        text: fixed text features [E, 2] instead of contexts.
        scaling: of the images, see `mvfa.features.prepare`.
        contrast: whether a similarity is to the difference of the classes' text features, or to
            its own class's alone (the released code's --contrast_mood).
        generator: draws the initial adapters as nn.Linear does, normal before abnormal, level by
            level, then the contexts; None: torch's global generator.

    """

    name = catalog.MADCLIP

    def __init__(
        self,
        clip: CLIP,
        *,
        levels: Sequence[int],
        side: int,
        masks: bool,
        noun: str,
        text: Tensor | None = None,
        scaling: str = "none",
        contrast: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        """Raise UserError if the levels are not rising block numbers of the vision tower."""
        super().__init__(FORM, side, masks, clip.weight_file)
        check_levels(levels, clip.visual.layers)
        self.clip = clip
        self.levels = tuple(levels)
        self.scaling = scaling
        self.contrast = contrast
        width = clip.visual.width
        for key in ADAPTERS:
            adapters = [LevelAdapter(width, self.embed_dim, generator) for _ in levels]
            setattr(self, key, nn.ModuleList(adapters).to(self.device))
        self.prompts = LearnedText(clip, noun, generator) if text is None else None
        self.fixed = text is not None  # whether the text features are given, not computed
        self.text = None if text is None else text.to(self.device)  # [E, 2]; None: out of date

    # ---------------------------------------------------------------- images to features

    @property
    def device(self) -> torch.device:
        """The device of the backbone."""
        return self.clip.visual.class_embedding.device

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one image's features: [L, 1 + N, D]."""
        visual = self.clip.visual
        return (len(self.levels), *visual.positional_embedding.shape)

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Compute CLIP's hidden tokens behind each level's block: -> [B, L, 1 + N, D]."""
        assert isinstance(images, Tensor), "the images are of one size"
        x = self.clip.visual.embed(prepare(images, self.device, self.scaling))  # [B, 1 + N, D]
        taps = []
        for first, last in zip((0, *self.levels), self.levels, strict=False):
            x = self.clip.visual.transformer(x, first, last)
            taps.append(x)
        return torch.stack(taps, dim=1)

    # ---------------------------------------------------------------- training

    def support(self, shots: Shots, target: ObjectInfo, generator: torch.Generator) -> Support:
        """Return the shots in sixteen versions each."""
        return Support(shots, target, self.side, MadclipVersions(generator))

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Return the parameters of the two optimizers; fixed text features have none."""
        groups = {"adapters": [p for key in ADAPTERS for p in getattr(self, key).parameters()]}
        if not self.fixed:
            assert self.prompts is not None
            groups["contexts"] = list(self.prompts.contexts.values())
        return groups

    def similarities(
        self, features: Tensor, text: Tensor, heads: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the similarities of patches to both classes by head: [B, L, N, 2].

        features [B, L, 1 + N, D], text [E, 2]. S_n = f_n . (t_n - t_a), S_a = f_a . (t_a - t_n);
        without contrast S_n = f_n . t_n, S_a = f_a . t_a.
        """
        directions = text - text.flip(1) if self.contrast else text  # [E, 2]
        found: dict[str, list[Tensor]] = {head: [] for head in heads}
        for level in range(len(self.levels)):
            patches = features[:, level, 1:]  # [B, N, D]; no adapter mixes tokens
            classes = [getattr(self, key)[level](patches, heads) for key in ADAPTERS]
            for i, head in enumerate(heads):
                pair = [own[i] @ directions[:, c] for c, own in enumerate(classes)]
                found[head].append(torch.stack(pair, dim=-1))  # [B, N, 2]
        return {head: torch.stack(levels, dim=1) for head, levels in found.items()}

    def loss(
        self, features: Tensor, labels: Tensor, masks: Tensor | None, nouns: Sequence[str]
    ) -> Tensor:
        """Return the loss of each image [B]: det, and seg where there are masks."""
        heads = ("det",) if masks is None else ("det", "seg")
        found = self.similarities(features, self.text_features(nouns), heads)
        loss = det_loss(found["det"], labels)
        return loss if masks is None else loss + seg_loss(found["seg"], masks)

    def text_features(self, nouns: Sequence[str] = ()) -> Tensor:
        """Return the text features [E, 2]: in training computed anew, else those of the last call.

        `nouns`: of the images that they are for.
        """
        if self.text is not None and (self.fixed or not torch.is_grad_enabled()):
            return self.text
        assert self.prompts is not None
        assert set(nouns) <= {self.prompts.noun}, "contexts are of one noun"
        text = self.prompts()
        self.text = None if text.requires_grad else text  # the step to come changes the contexts
        return text

    def moved(self) -> None:
        """Forget the text features, which follow from the contexts."""
        if not self.fixed:
            self.text = None

    def reason(self, features: Tensor) -> str:
        """Return why a loss is not finite, and what to do."""
        other = "use --precision fp32, or other weights (--clip_path)"
        if not features.isfinite().all():
            return f"the features of images are not finite; {other}"
        for name, parameters in self.groups().items():
            if not all(values.isfinite().all() for values in parameters):
                return f"the {name} are not finite; lower --learning_rate"
        with torch.no_grad():
            if not self.text_features().isfinite().all():
                return f"the text features are not finite; {other}"
        return super().reason(features)

    @torch.no_grad()
    def prepare_scores(self) -> None:
        """Compute the text features, unless they are up to date."""
        self.text_features()

    # ---------------------------------------------------------------- scores

    @property
    def embed_dim(self) -> int:
        """E, the width of the token features."""
        return self.clip.config.embed_dim

    def map_scores(self, *, few: bool) -> bool:  # noqa: ARG002
        """Return whether an image's score is the maximum of its map: for objects with masks."""
        return self.masks

    @torch.no_grad()
    def score(
        self,
        features: Tensor,
        bank: Sequence[Tensor] | None,  # noqa: ARG002  # there is no memory branch
        *,
        maps: bool = False,
    ) -> dict[str, Tensor]:
        """Return logits S_a - S_n [B, L, N], and text_scores [B] of objects without masks.

        With masks an image's score is the maximum of its map.
        """
        head = "seg" if self.masks else "det"
        found = self.similarities(features, self.text_features(), (head,))[head]
        logits = found[..., 1] - found[..., 0]  # [B, L, N]
        values = {"logits": logits} if self.masks or maps else {}
        if not self.masks:
            pooled = scoring.image_score(logits.sigmoid(), self.form.image_score)  # [B, L]
            values["text_scores"] = scoring.over_levels(pooled, self.form.level_reduction)
        return values

    # ---------------------------------------------------------------- files

    def trained(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of a checkpoint by group and name; they are the method's own."""
        groups = {key: dict(getattr(self, key).state_dict()) for key in ADAPTERS}
        if self.fixed:
            assert self.text is not None
            return groups | {FIXED: {FIXED: self.text}}
        assert self.prompts is not None
        return groups | self.prompts.groups()

    def state(self) -> State:
        """Return copies of adapters and contexts (or fixed text features), on the CPU."""
        return {
            key: {name: values.detach().cpu().clone() for name, values in group.items()}
            for key, group in self.trained().items()
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `state` or `check` returned."""
        self.fixed = FIXED in state
        self.text = self.no_text() if self.fixed else None
        for key, group in self.trained().items():
            for name, values in group.items():
                values.copy_(state[key][name])

    def no_text(self) -> Tensor:
        """Return memory for text features [E, 2]."""
        return torch.empty(self.embed_dim, 2, device=self.device)

    def check(self, state: Mapping[str, Mapping[str, Tensor]], path: Path) -> State:
        """Return adapters and contexts of a checkpoint, or its fixed text features.

        CLIP's text weights, which the released code's files repeat, must be those of this network.
        Raises UserError unless all fits.
        """
        expected = self.trained()
        if FIXED in state:
            expected = {key: expected[key] for key in ADAPTERS} | {FIXED: {FIXED: self.no_text()}}
        missing = [key for key in expected if key not in state]
        if missing:
            raise UserError(
                f"{path} is no MadCLIP checkpoint: it has no {missing[0]}; name another file"
            )
        found = {key: without_tower(state[key]) for key in expected}
        for key, group in expected.items():
            what = f"the {key} of {path}"
            check_state(found[key], group, what)
            check_tower(self.clip, state[key], what)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return adapters and text features, which need no text tower."""
        self.prepare_scores()
        assert self.text is not None
        state = self.state()
        tensors = {f"{key}.{name}": v for key in ADAPTERS for name, v in state[key].items()}
        return tensors | {TEXT: self.text.cpu()}

    def settings(self) -> dict[str, Any]:
        """Return what `load` needs besides the recipe."""
        return {"contrast": self.contrast}


def create(
    options: Options, env: Environment, target: ObjectInfo, generator: torch.Generator
) -> MadCLIP:
    """Return MadCLIP with initial adapters and contexts. Raises UserError."""
    return MadCLIP(
        create_model(**clip_arguments(options, env)),
        levels=options.features_list,
        side=options.img_size,
        masks=target.masks,
        noun=target.noun,
        scaling=options.recipe.scaling,
        contrast=options.contrast,
        generator=generator,
    )


def load(settings: Settings, tensors: Mapping[str, Tensor], source: Source) -> MadCLIP:
    """Return MadCLIP of a detector's tensors. Raises UserError unless they fit."""
    clip = load_clip(settings, source)
    contrast = settings.method_settings.get("contrast")
    if not isinstance(contrast, bool):
        raise damaged(source.path, "its settings do not say how features are compared")
    text = text_of(tensors, clip, source)
    with Undrawn():
        method = MadCLIP(
            clip,
            levels=settings.features_list,
            side=settings.img_size,
            masks=settings.masks,
            noun=settings.noun,
            text=text,
            scaling=settings.recipe.scaling,
            contrast=contrast,
        )
    state: State = {FIXED: {FIXED: text}}
    for key in ADAPTERS:
        prefix = f"{key}."
        own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        state[key] = own
    method.restore(method.check(state, source.path))
    return method

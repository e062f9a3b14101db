"""WinCLIP (Jeong et al., CVPR 2023) as a method: CLIP on windows of patches, without training.

Zero-shot, the image and every window of 2 x 2 and of 3 x 3 patches are compared with sentences;
few-shot (WinCLIP+), windows and patches also with those of normal shots. Both results are
probabilities or distances in [0, 1], and the method averages them as they are. So both branches
come as one, the text branch, whose scale no test set decides.

Letters: B images, P patches per side, N = P * P, k patches per side of a window, W windows of a
size, D vision width, E joint width, F the larger of D and E, M rows of the memory bank, S image
side.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.model import CLIP
from CLIP.weights import create_model
from dataset.catalog import ObjectInfo
from dataset.medical_few import Support
from dataset.shots import Shots
from errors import UserError
from mvfa import scoring
from mvfa.detector_settings import Settings
from mvfa.environment import Environment
from mvfa.features import prepare
from mvfa.forms import clip_arguments
from mvfa.methods import catalog
from mvfa.methods.base import Images, Method, Source
from mvfa.methods.clip_files import TEXT, load_clip, text_of
from mvfa.options import Options
from mvfa.recipe import Recipe
from mvfa.score_form import ScoreForm
from prompt import NORMAL_STATES

SCALES = (2, 3)  # k, patches per side of a window
TEMPERATURE = 0.07  # of the softmax over the two cosines
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = (  # the paper's, in its order
    "a cropped photo of the {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a close-up photo of the {}.",
    "a bright photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a dark photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a blurry photo of the {}.",
    "a blurry photo of a {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of a small {}.",
    "a photo of the small {}.",
    "a photo of a large {}.",
    "a photo of the large {}.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a photo of a {} for anomaly detection.",
)


class WindowForm(ScoreForm):
    """Patch values are final: their map is only upsampled, and images have scores of their own."""

    def text_map(self, logits: Tensor, side: int) -> Tensor:
        """Return the upsampled values: [B, 1, N] -> [B, S, S]; bilinear, corners not aligned."""
        grid = round(logits.shape[-1] ** 0.5)
        square = logits.unflatten(-1, (grid, grid))  # [B, 1, P, P]
        return F.interpolate(square, size=(side, side), mode="bilinear")[:, 0]


class WinClip(Method):
    """CLIP's own vision tower on an image and on its windows; nothing is trained.

    Args:
        clip: the frozen network, of which the vision tower is kept.
        text: text features [E, 2] of the object's noun, see `window_text`.
        recipe: its input scaling is used here.
        side: S, image side in pixels.
        masks: whether the object that is scored has masks.

    """

    name = catalog.WINCLIP

    def __init__(self, clip: CLIP, text: Tensor, recipe: Recipe, side: int, masks: bool) -> None:
        """Raise UserError if the largest window does not fit into the image."""
        form = WindowForm(recipe.image_score, recipe.level_reduction)
        super().__init__(form, side, masks, clip.weight_file)
        self.visual = clip.visual
        self.text = text.to(clip.device)
        self.scaling = recipe.scaling
        self.grid = side // clip.visual.patch_size
        if self.grid < max(SCALES):
            least = max(SCALES) * clip.visual.patch_size
            raise UserError(
                f"--img_size {side} has {self.grid} patches per side, the windows of WinCLIP "
                f"{max(SCALES)}; at least {least} is needed"
            )
        self.windows = [window_patches(self.grid, scale).to(clip.device) for scale in SCALES]
        # of the features: tokens of patches, of windows scale by scale, of the image
        self.parts = [self.grid**2, *(len(patches) for patches in self.windows), 1]
        self.width = max(clip.visual.width, clip.config.embed_dim)  # F

    @property
    def device(self) -> torch.device:
        """The device of the vision tower."""
        return self.visual.class_embedding.device

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Tokens of patches (D wide), windows and image (E wide), with zeros to F."""
        return sum(self.parts), self.width

    def support(
        self,
        shots: Shots,
        target: ObjectInfo,
        generator: torch.Generator,  # noqa: ARG002  # nothing is drawn
    ) -> Support:
        """Return the shots as they are, which fill the memory bank."""
        return Support(shots, target, self.side, lambda images, masks: (images, masks))

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Compute the tokens of images [B, 3, S, S]: [B, *feature_shape] float32."""
        assert isinstance(images, Tensor), "images of one size"
        x = self.visual.embed(prepare(images, self.device, self.scaling))  # [B, 1 + N, D]
        whole = self.visual.ln_post(self.visual.transformer(x))  # [B, 1 + N, D]
        windows = [self._window_tokens(x, patches) for patches in self.windows]
        parts = [whole[:, 1:], *windows, whole[:, :1] @ self.visual.proj]
        wide = [F.pad(part, (0, self.width - part.shape[-1])) for part in parts]
        return torch.cat(wide, dim=1)

    def _window_tokens(self, x: Tensor, patches: Tensor) -> Tensor:
        """Run the tower on windows only: hidden tokens [B, 1 + N, D], [W, k * k] -> [B, W, E]."""
        cls = x[:, :1].expand(-1, len(patches), -1)  # [B, W, D]
        inside = x[:, 1:][:, patches]  # [B, W, k * k, D]
        tokens = torch.cat([cls[:, :, None], inside], dim=2)  # [B, W, 1 + k * k, D]
        hidden = self.visual.transformer(tokens.flatten(0, 1))[:, 0]  # [B * W, D]
        pooled = self.visual.ln_post(hidden) @ self.visual.proj  # [B * W, E]
        return pooled.unflatten(0, (len(x), -1))  # [B, W, E]

    @property
    def embed_dim(self) -> int:
        """F, the width of the tokens in the memory bank."""
        return self.width

    @property
    def bank_levels(self) -> int:
        """One of patches, and one a scale of windows."""
        return 1 + len(SCALES)

    def bank(self, features: Tensor) -> list[Tensor]:
        """Return the tokens of images as bank rows: of patches, then windows of each scale.

        Three times [N * B, F]. A scale has fewer windows than patches: its last is repeated, which
        changes no nearest row.
        """
        order = torch.arange(self.grid**2, device=features.device)
        *levels, _ = features.split(self.parts, dim=1)
        full = [tokens[:, order.clamp(max=tokens.shape[1] - 1)] for tokens in levels]
        return scoring.normalise_bank(full)

    def map_scores(self, *, few: bool) -> bool:  # noqa: ARG002
        """Return False: images have scores of their own."""
        return False

    def bank_rows(self, image: Tensor) -> int:  # noqa: ARG002  # all images are S x S
        """Return how many rows an image adds to the memory bank: N."""
        return self.grid**2

    def score(
        self, features: Tensor, bank: Sequence[Tensor] | None, *, maps: bool = False
    ) -> dict[str, Tensor]:
        """Return the patch values and the score of features [B, *feature_shape] by their names.

        bank: three times [M, F], None in zero-shot. Few-shot, the values are the mean of both
        branches', and the score that of the text branch and the largest value of the memory branch.
        """
        patches, *windows, image = features.split(self.parts, dim=1)
        scores = self.probability(image)[:, 0]  # [B]
        values = None
        if self.masks or maps:
            scales = [scores[:, None].expand(-1, self.grid**2)]
            scales += [self.spread(self.probability(tokens)) for tokens in windows]
            values = harmonic_mean(torch.stack(scales))  # [B, N]
        if bank is not None:
            nearest = [distance(t, rows) for t, rows in zip((patches, *windows), bank, strict=True)]
            scales = [nearest[0], *(self.spread(of_windows) for of_windows in nearest[1:])]
            memory = torch.stack(scales).mean(dim=0)  # [B, N]
            scores = (scores + memory.amax(dim=1)) / 2
            values = None if values is None else (values + memory) / 2
        found = {"text_scores": scores}
        if values is not None:
            found["logits"] = values[:, None]  # [B, 1, N]
        return found

    def probability(self, tokens: Tensor) -> Tensor:
        """Return the probability of "abnormal" of tokens [B, W, F], E wide: [B, W]."""
        cosines = F.normalize(tokens[..., : len(self.text)], dim=-1) @ self.text  # [B, W, 2]
        return ((cosines[..., 1] - cosines[..., 0]) / TEMPERATURE).sigmoid()

    def spread(self, scores: Tensor) -> Tensor:
        """Return for each patch the harmonic mean over the windows that hold it: [B, W] -> [B, N].

        0 where one of them is 0.
        """
        scale = self.grid + 1 - round(scores.shape[-1] ** 0.5)  # k
        inverse = torch.stack([1 / scores, torch.ones_like(scores)], dim=1)  # [B, 2, W]
        columns = inverse.repeat_interleave(scale**2, dim=1)  # [B, 2 * k * k, W]
        sums, counts = F.fold(columns, self.grid, scale).flatten(2).unbind(dim=1)  # [B, N] each
        return counts / sums

    def tensors(self) -> dict[str, Tensor]:
        """Return the text features [E, 2]."""
        return {TEXT: self.text}


def window_patches(grid: int, scale: int) -> Tensor:
    """Return the patches of each window of scale x scale patches: [W, k * k] int64, row by row."""
    numbers = torch.arange(grid**2).view(grid, grid)
    return numbers.unfold(0, scale, 1).unfold(1, scale, 1).flatten(0, 1).flatten(1)


def harmonic_mean(scores: Tensor) -> Tensor:
    """Return the harmonic mean over the first dimension: [n, B, N] -> [B, N]."""
    return len(scores) / (1 / scores).sum(dim=0)


def distance(tokens: Tensor, rows: Tensor) -> Tensor:
    """Return half the cosine distance to the nearest row, in [0, 1]: [B, W, F], [M, F] -> [B, W].

    `rows` have norm 1. A distance that rounds to less than 0 is 0: its inverse is summed.
    """
    unit = F.normalize(tokens, dim=-1, eps=scoring.NORM_FLOOR)
    return ((1 - scoring.similarity_exact(unit, rows)) / 2).clamp_min(0)


def window_sentences(noun: str) -> list[list[str]]:
    """List the sentences of a noun: normal, then abnormal."""
    return [
        [template.format(state.format(noun)) for state in states for template in TEMPLATES]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    ]


def window_text(clip: CLIP, noun: str) -> Tensor:
    """Return the text features [E, 2] of a noun, of norm 1: column 0 normal, column 1 abnormal.

    Each column is the mean of its sentences' features, which are not divided by their norm first.
    """
    means = [clip.encode_sentences(group).mean(dim=0) for group in window_sentences(noun)]
    return F.normalize(torch.stack(means, dim=1), dim=0)  # [E, 2]


def create(
    options: Options,
    env: Environment,
    target: ObjectInfo,
    generator: torch.Generator,  # noqa: ARG001  # nothing is drawn
) -> WinClip:
    """Load CLIP and encode the sentences of an object for a script. Raises UserError."""
    clip = create_model(**clip_arguments(options, env))
    text = window_text(clip, target.noun)
    return WinClip(clip, text, options.recipe, options.img_size, target.masks)


def load(settings: Settings, tensors: Mapping[str, Tensor], source: Source) -> WinClip:
    """Load the method of a detector. Raises UserError for text features of another shape."""
    clip = load_clip(settings, source)
    text = text_of(tensors, clip, source)
    return WinClip(clip, text, settings.recipe, settings.img_size, settings.masks)

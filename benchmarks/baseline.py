"""The scores of MVFA computed in the manner of the released code: a yardstick for speed and memory, nothing else.

    python -m benchmarks.baseline --obj Brain --shot 2 --epoch 3 --data_path DIR --fewshot_path DIR --clip_path FILE

One image at a time through all 24 blocks, attention maps returned and pooled features computed though nobody reads
them, gradients of the frozen backbone, text at full context, full-size maps of the whole test set in memory,
scikit-learn over all pixels (SPEC sections 2 to 4 and 7). Network, losses, scores and metrics are written here once
more, so that agreement with the program is also a check of it.

Letters: T tokens (1 + N), N = P * P patches, D vision width, E joint width, L levels, S image side, M rows of a bank.
"""

import argparse
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from CLIP import ClipConfig, Tower, tokenize
from CLIP.weights import infer_config, read_state
from dataset.catalog import info
from dataset.folder import FOREGROUND, Record, load_image, load_mask
from dataset.medical_few import Support, evaluation_set
from dataset.shots import choose_shots
from prompt import STATES, sentences

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


class Block(nn.Module):
    """A pre-norm block over [T, B, D] that also returns its attention maps [B, heads, T, T]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.ln_2, self.mlp = nn.LayerNorm(width), nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.ln_1(x)
        mixed, maps = self.attn(y, y, y, need_weights=True, average_attn_weights=False, attn_mask=mask)
        x = x + mixed
        return x + self.mlp(self.ln_2(x)), maps


class Transformer(nn.Module):
    """Blocks under the published names."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(tower.width, tower.heads) for _ in range(tower.layers))


class Vision(nn.Module):
    """The parts of the vision tower under the published names."""

    def __init__(self, config: ClipConfig, grid: int) -> None:
        super().__init__()
        width = config.vision.width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(grid * grid + 1, width))
        self.ln_pre, self.transformer, self.ln_post = nn.LayerNorm(width), Transformer(config.vision), nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, config.embed_dim))


class Network(nn.Module):
    """Both towers, drawn at random; every parameter requires a gradient."""

    def __init__(self, config: ClipConfig, grid: int) -> None:
        super().__init__()
        width = config.text.width
        self.config, self.visual, self.transformer = config, Vision(config, grid), Transformer(config.text)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context_length, width))
        self.ln_final, self.text_projection = nn.LayerNorm(width), nn.Parameter(torch.randn(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [B, context length] -> features [B, E]."""
        mask = torch.full((tokens.shape[1],) * 2, -math.inf, device=tokens.device).triu(1)
        x = (self.token_embedding(tokens) + self.positional_embedding).transpose(0, 1)
        for block in self.transformer.resblocks:
            x, _ = block(x, mask)
        x = self.ln_final(x.transpose(0, 1))
        return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ self.text_projection


class Adapter(nn.Module):
    """Two bias-free layers: x [T, 1, D] -> token features [T, 1, E] and what the stream gets [T, 1, D]."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = self.fc1(x)
        return t, self.fc2(t)


class Model(nn.Module):
    """The network with its adapters."""

    def __init__(self, network: Network, levels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.levels = network, list(levels)
        width, bottleneck = network.config.vision.width, network.config.embed_dim
        self.seg_adapters = nn.ModuleList(Adapter(width, bottleneck) for _ in levels)
        self.det_adapters = nn.ModuleList(Adapter(width, bottleneck) for _ in levels)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.logit_scale.device

    def autocast(self) -> AbstractContextManager[object]:
        """Half precision on CUDA, as the released code has it."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Image [1, 3, S, S] -> pooled features [1, E], seg and det tokens L times [1 + N, E], attention maps."""
        visual = self.network.visual
        x = visual.conv1(image).flatten(2).transpose(1, 2)  # [1, N, D]
        x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1) + visual.positional_embedding
        x = visual.ln_pre(x).transpose(0, 1)
        seg, det, maps = [], [], []
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            x, attention = block(x)
            maps.append(attention)
            if number in self.levels:
                level = self.levels.index(number)
                seg_tokens, seg_out = self.seg_adapters[level](x)
                det_tokens, det_out = self.det_adapters[level](x)
                x = 0.8 * x + 0.1 * seg_out + 0.1 * det_out
                seg.append(seg_tokens[:, 0])
                det.append(det_tokens[:, 0])
        return visual.ln_post(x[0]) @ visual.proj, seg, det, maps


def load(path: Path, image_size: int, levels: Sequence[int], device: str = "cpu") -> Model:
    """Weights into a network as published, and from there into one for the image side, both drawn at random first."""
    config = infer_config(state := read_state(path))
    published = Network(config, config.grid)
    published.load_state_dict({name: value.float() for name, value in state.items()})
    state, side = published.state_dict(), image_size // config.patch_size
    positions = state["visual.positional_embedding"]
    square = positions[1:].T.reshape(1, -1, config.grid, config.grid)
    square = F.interpolate(square, (side, side), mode="bicubic", antialias=True, align_corners=False)
    state["visual.positional_embedding"] = torch.cat([positions[:1], square.flatten(2)[0].T])
    network = Network(config, side)
    network.load_state_dict(state)
    return Model(network, levels).to(device).eval()


@torch.no_grad()
def text_features(model: Model, noun: str) -> Tensor:
    """Features [E, 2] of a noun: one state phrase at a time, every sentence at full context."""
    network, columns = model.network, []
    for states in STATES:
        features = []
        for state in states:
            tokens = tokenize(sentences(noun, [state]), network.config.context_length)
            tokens = F.pad(tokens, (0, network.config.context_length - tokens.shape[1]))
            with model.autocast():
                features.append(network.encode_text(tokens.to(model.device)))
        unit = torch.cat(features) / torch.cat(features).norm(dim=-1, keepdim=True)
        mean = unit.mean(dim=0)
        columns.append(mean / mean.norm())
    return torch.stack(columns, dim=1)


def logits(tokens: Tensor, text: Tensor) -> Tensor:
    """Both text logits of each patch: [1 + N, E], [E, 2] -> [N, 2]."""
    return 100 * (tokens[1:] / tokens[1:].norm(dim=-1, keepdim=True)) @ text


def enlarge(values: Tensor, side: int) -> Tensor:
    """Patch values [N, C] -> [1, C, S, S], bilinear, corners aligned."""
    patches = math.isqrt(len(values))
    square = values.T.reshape(1, -1, patches, patches)
    return F.interpolate(square, (side, side), mode="bilinear", align_corners=True)


def focal(p: Tensor, mask: Tensor) -> Tensor:
    """Two-channel probabilities [1, 2, S, S] and mask [1, 1, S, S] int64 -> a value."""
    one_hot = torch.zeros_like(p).scatter_(1, mask, 1).clamp(1e-5, 1 - 1e-5)
    pt = (one_hot * p).sum(dim=1) + 1e-5
    return (-((1 - pt) ** 2) * pt.log()).mean()


def dice(p: Tensor, mask: Tensor) -> Tensor:
    """Abnormal probabilities and mask, both [1, S, S] -> a value."""
    return 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)


class Training:
    """Two Adam optimisers and a step of one image."""

    def __init__(self, model: Model, rate: float) -> None:
        self.model = model
        branches = (model.seg_adapters, model.det_adapters)
        self.seg, self.det = (torch.optim.Adam(list(b.parameters()), lr=rate, betas=(0.5, 0.999)) for b in branches)

    def loss(self, image: Tensor, label: Tensor, mask: Tensor | None, text: Tensor) -> Tensor:
        """Loss of image [3, S, S]: label 0 or 1, mask [S, S] bool or None, text [E, 2]."""
        _, seg, det, _ = self.model(image[None].to(self.model.device))
        total = torch.zeros((), device=self.model.device)
        for tokens in det:
            score = logits(tokens, text).softmax(dim=-1)[:, 1].mean()
            total = total + nn.BCEWithLogitsLoss()(score, label.to(score))
        if mask is not None:
            target = mask.long()[None, None].to(self.model.device)
            for tokens in seg:
                p = enlarge(logits(tokens, text), mask.shape[-1]).softmax(dim=1)
                total = total + focal(p, target) + dice(p[:, 1], target[:, 0])
        return total

    def step(self, image: Tensor, label: Tensor, mask: Tensor | None, text: Tensor) -> float:
        """One step; without a mask the seg adapters stay. What the backbone receives is left lying in its gradients."""
        with self.model.autocast():
            loss = self.loss(image, label, mask, text)
        self.seg.zero_grad()
        self.det.zero_grad()
        loss.backward()
        if mask is not None:
            self.seg.step()
        self.det.step()
        return loss.item()


@torch.no_grad()
def build_bank(model: Model, images: Tensor, masks: bool) -> list[Tensor]:
    """Token features, class tokens included, of normal images [n, 3, S, S]: L times [M, E]."""
    tokens = []
    for image in images:
        with model.autocast():
            _, seg, det, _ = model(image[None].to(model.device))
        tokens.append(seg if masks else det)
    return [torch.cat(level) for level in zip(*tokens, strict=True)]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of a with every row of b, norms at least 1e-8: [n, E], [m, E] -> [n, m]."""
    a, b = (rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-8) for rows in (a, b))
    return a @ b.T


@dataclass
class Kept:
    """What a test pass keeps: a label an image, and full-size maps and masks [S, S] or one score a branch."""

    labels: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    text_maps: list[np.ndarray] = field(default_factory=list)
    memory_maps: list[np.ndarray] = field(default_factory=list)
    text_scores: list[float] = field(default_factory=list)
    memory_scores: list[float] = field(default_factory=list)

    def add(self, record: Record, side: int) -> Tensor:
        """Read an image [1, 3, S, S] in [0, 1]; note its label and mask."""
        self.labels.append(record.label)
        if record.object.masks:
            self.masks.append((load_mask(record, side) > FOREGROUND).numpy().astype(np.int64))
        return load_image(record.image, side)[None].float() / 255


def memory_map(tokens: Sequence[Tensor], bank: Sequence[Tensor], side: int) -> Tensor:
    """Distance of each patch to the bank, upsampled, summed over levels: [S, S]."""
    nearest = [(1 - cosines(rows, t[1:])).min(dim=0).values for t, rows in zip(tokens, bank, strict=True)]
    return torch.stack([enlarge(values[:, None], side)[0, 0] for values in nearest]).sum(dim=0)


def text_map(levels: Sequence[Tensor], side: int) -> Tensor:
    """Abnormal probability of each pixel, summed over levels: L times [N, 2] -> [S, S]."""
    return torch.stack([enlarge(level, side).softmax(dim=1)[0, 1] for level in levels]).sum(dim=0)


@torch.no_grad()
def test_image(model: Model, record: Record, text: Tensor, bank: Sequence[Tensor] | None, side: int, kept: Kept) -> None:
    """Score one image from disk; without a bank (zero-shot) there is no memory branch."""
    image, masks = kept.add(record, side).to(model.device), record.object.masks
    with model.autocast():
        _, seg, det, _ = model(image)
        if masks:
            kept.text_maps.append(text_map([logits(t, text) for t in seg], side).float().cpu().numpy())
        if not masks or bank is None:
            kept.text_scores.append(sum(float(logits(t, text).softmax(dim=-1)[:, 1].mean()) for t in det))
        if bank is not None:
            found = memory_map(seg if masks else det, bank, side).float().cpu().numpy()
            if masks:
                kept.memory_maps.append(found)
            else:
                kept.memory_scores.append(float(found.mean()))


def scale(values: Sequence[np.ndarray] | Sequence[float]) -> np.ndarray:
    """Min-max over the whole test set, float32; constant values become 0."""
    array = np.asarray(values, dtype=np.float32)
    span = array.max() - array.min()
    return (array - array.min()) / span if span else np.zeros_like(array)


@dataclass(frozen=True)
class Result:
    """Scores [n] in [0, 1] and AUROCs as fractions."""

    scores: np.ndarray
    image_auroc: float
    pixel_auroc: float | None

    def lines(self, obj: str) -> str:
        """As the released code prints them."""
        pixel = "" if self.pixel_auroc is None else f"{obj} pAUC : {self.pixel_auroc:.4f}\n"
        return f"{pixel}{obj} AUC : {self.image_auroc:.4f}"


def evaluate(kept: Kept) -> Result:
    """Scale, fuse, measure: everything at once."""
    pixel = None
    if kept.masks:
        maps = scale(kept.text_maps)
        if kept.memory_maps:
            maps = 0.5 * maps + 0.5 * scale(kept.memory_maps)
        pixel = float(roc_auc_score(np.asarray(kept.masks).flatten(), maps.flatten()))
        scores = maps.reshape(len(maps), -1).max(axis=1)
    if kept.text_scores:
        scores = scale(kept.text_scores)
        if kept.memory_scores:
            scores = 0.5 * scores + 0.5 * scale(kept.memory_scores)
    return Result(scores, float(roc_auc_score(kept.labels, scores)), pixel)

"""The scores of MVFA computed as the released code does: a baseline for speed and memory.

    python -m benchmarks.baseline --obj Brain --shot 2 --epoch 3 \
        --data_path DIR --fewshot_path DIR --clip_path FILE

One image at a time through all 24 blocks; attention maps and pooled features that nothing uses;
gradients of the frozen backbone; text at full context; full-size maps of the whole test set in
memory; scikit-learn over all pixels (SPEC sections 2 to 4 and 7). Network, losses, scores and
metrics are implemented independently of the program, so that their agreement checks both.

Letters: T tokens (1 + N), N = P * P patches, D vision width, E joint width, L levels, S image side
in pixels, M rows of a memory bank, n images.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.baseline_network import Model, load
from CLIP.tokenizer import tokenize
from dataset.catalog import CATALOG, object_info
from dataset.folder import Record, load_image, load_mask
from dataset.masks import FOREGROUND
from dataset.medical_few import Support, evaluation_set
from dataset.shots import choose_shots
from mvfa.defaults import DEFAULT_SEED
from mvfa.recipe import LEVELS
from prompt import STATES, sentences


@torch.no_grad()
def text_features(model: Model, noun: str) -> Tensor:
    """Compute text features [E, 2] of a noun, one state phrase at a time, at full context."""
    network = model.network
    columns = []
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
    """Compute both text logits of each patch: [1 + N, E], [E, 2] -> [N, 2]."""
    return 100 * (tokens[1:] / tokens[1:].norm(dim=-1, keepdim=True)) @ text


def enlarge(values: Tensor, side: int) -> Tensor:
    """Upsample patch values [N, C] to [1, C, S, S]: bilinear, corners aligned."""
    patches = math.isqrt(len(values))
    square = values.T.reshape(1, -1, patches, patches)  # [1, C, P, P]
    return F.interpolate(square, (side, side), mode="bilinear", align_corners=True)


def focal(p: Tensor, mask: Tensor) -> Tensor:
    """Compute the focal loss of probabilities [1, 2, S, S] and a mask [1, 1, S, S] int64."""
    one_hot = torch.zeros_like(p).scatter_(1, mask, 1).clamp(1e-5, 1 - 1e-5)
    pt = (one_hot * p).sum(dim=1) + 1e-5
    return (-((1 - pt) ** 2) * pt.log()).mean()


def dice(p: Tensor, mask: Tensor) -> Tensor:
    """Compute the Dice loss of abnormal probabilities and a mask, both [1, S, S]."""
    return 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)


class Training:
    """Training steps of one image, with one Adam optimizer per head."""

    def __init__(self, model: Model, rate: float) -> None:
        self.model = model
        betas = (0.5, 0.999)
        self.seg = torch.optim.Adam(list(model.seg_adapters.parameters()), lr=rate, betas=betas)
        self.det = torch.optim.Adam(list(model.det_adapters.parameters()), lr=rate, betas=betas)

    def loss(self, image: Tensor, label: Tensor, mask: Tensor | None, text: Tensor) -> Tensor:
        """Compute the loss of an image [3, S, S]: label 0 or 1, mask [S, S] bool, text [E, 2]."""
        _, seg, det, _ = self.model(image[None].to(self.model.device))
        total = torch.zeros((), device=self.model.device)
        for tokens in det:
            score = logits(tokens, text).softmax(dim=-1)[:, 1].mean()
            total = total + nn.BCEWithLogitsLoss()(score, label.to(score))
        if mask is not None:
            target = mask.long()[None, None].to(self.model.device)  # [1, 1, S, S]
            for tokens in seg:
                p = enlarge(logits(tokens, text), mask.shape[-1]).softmax(dim=1)
                total = total + focal(p, target) + dice(p[:, 1], target[:, 0])
        return total

    def step(self, image: Tensor, label: Tensor, mask: Tensor | None, text: Tensor) -> float:
        """Take one step and return its loss; without a mask the seg adapters do not change.

        The gradients of the backbone are computed and never cleared.
        """
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
    """Compute token features, with class tokens, of normal images [n, 3, S, S]: L times [M, E]."""
    tokens = []
    for image in images:
        with model.autocast():
            _, seg, det, _ = model(image[None].to(model.device))
        tokens.append(seg if masks else det)
    return [torch.cat(level) for level in zip(*tokens, strict=True)]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cosine of every row of a with every row of b: [M, E], [N, E] -> [M, N].

    Norms are at least 1e-8.
    """
    a = a / a.norm(dim=1, keepdim=True).clamp_min(1e-8)
    b = b / b.norm(dim=1, keepdim=True).clamp_min(1e-8)
    return a @ b.T


@dataclass
class Outputs:
    """What a test pass stores per image: label; mask and maps [S, S], or a score per branch."""

    labels: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    text_maps: list[np.ndarray] = field(default_factory=list)
    memory_maps: list[np.ndarray] = field(default_factory=list)
    text_scores: list[float] = field(default_factory=list)
    memory_scores: list[float] = field(default_factory=list)

    def add(self, record: Record, side: int) -> Tensor:
        """Read an image as [1, 3, S, S] float32 in [0, 1], and store its label and mask."""
        self.labels.append(record.label)
        if record.object.masks:
            self.masks.append((load_mask(record, side) > FOREGROUND).numpy().astype(np.int64))
        return load_image(record.image, side)[None].float() / 255


def memory_map(tokens: Sequence[Tensor], bank: Sequence[Tensor], side: int) -> Tensor:
    """Compute the distance of each patch to the bank, upsampled, summed over levels: [S, S]."""
    nearest = [
        (1 - cosines(rows, t[1:])).min(dim=0).values for t, rows in zip(tokens, bank, strict=True)
    ]  # L times [N]
    return torch.stack([enlarge(values[:, None], side)[0, 0] for values in nearest]).sum(dim=0)


def text_map(levels: Sequence[Tensor], side: int) -> Tensor:
    """Compute the abnormal probability of each pixel, summed over levels: L [N, 2] -> [S, S]."""
    return torch.stack([enlarge(level, side).softmax(dim=1)[0, 1] for level in levels]).sum(dim=0)


@torch.no_grad()
def score_image(
    model: Model,
    record: Record,
    text: Tensor,
    bank: Sequence[Tensor] | None,
    side: int,
    outputs: Outputs,
) -> None:
    """Score one image from disk; without a bank (zero-shot) there is no memory branch."""
    image = outputs.add(record, side).to(model.device)
    masks = record.object.masks
    with model.autocast():
        _, seg, det, _ = model(image)
        if masks:
            text_levels = [logits(t, text) for t in seg]  # L times [N, 2]
            outputs.text_maps.append(text_map(text_levels, side).float().cpu().numpy())
        if not masks or bank is None:
            scores = [float(logits(t, text).softmax(dim=-1)[:, 1].mean()) for t in det]
            outputs.text_scores.append(sum(scores))
        if bank is not None:
            distance = memory_map(seg if masks else det, bank, side).float().cpu().numpy()
            if masks:
                outputs.memory_maps.append(distance)
            else:
                outputs.memory_scores.append(float(distance.mean()))


def scale(values: Sequence[np.ndarray] | Sequence[float]) -> np.ndarray:
    """Scale values to [0, 1] by the test set's minimum and maximum; constant values become 0."""
    array = np.asarray(values, dtype=np.float32)
    span = array.max() - array.min()
    return (array - array.min()) / span if span else np.zeros_like(array)


@dataclass(frozen=True)
class Result:
    """Scores [n] in [0, 1] and AUROCs as fractions."""

    scores: np.ndarray
    image_auroc: float
    pixel_auroc: float | None

    def selection(self) -> float:
        """Return the value by which the released code selects a checkpoint."""
        return self.image_auroc + (self.pixel_auroc or 0.0)

    def lines(self, obj: str) -> str:
        """Format the AUROCs as the released code prints them."""
        pixel = "" if self.pixel_auroc is None else f"{obj} pAUC : {self.pixel_auroc:.4f}\n"
        return f"{pixel}{obj} AUC : {self.image_auroc:.4f}"


def evaluate(outputs: Outputs) -> Result:
    """Scale and fuse the branches, and compute AUROCs over all images and pixels at once."""
    pixel = None
    if outputs.masks:
        maps = scale(outputs.text_maps)
        if outputs.memory_maps:
            maps = 0.5 * maps + 0.5 * scale(outputs.memory_maps)
        pixel = float(roc_auc_score(np.asarray(outputs.masks).flatten(), maps.flatten()))
        scores = maps.reshape(len(maps), -1).max(axis=1)  # [n]
    if outputs.text_scores:
        scores = scale(outputs.text_scores)
        if outputs.memory_scores:
            scores = 0.5 * scores + 0.5 * scale(outputs.memory_scores)
    return Result(scores, float(roc_auc_score(outputs.labels, scores)), pixel)


def train_few(options: argparse.Namespace) -> list[Result]:
    """Train few-shot, with a memory bank and a test pass after every epoch.

    0 epochs: one test pass with random adapters. Returns one result per test pass.
    """
    model = load(
        options.clip_path, options.img_size, options.features_list, options.device, options.seed
    )
    info = object_info(options.obj)
    shots = choose_shots(
        options.data_path, info, options.shot, lists=options.fewshot_path, seed=options.seed
    )
    support = Support(shots, info, options.img_size)
    tests = evaluation_set(options.data_path, info, options.img_size)
    text = text_features(model, info.noun)
    training = Training(model, options.learning_rate)
    results: list[Result] = []
    for _ in range(max(options.epoch, 1)):
        for i in torch.randperm(len(support)).tolist() if options.epoch else ():
            mask = support.masks[i] if info.masks else None
            training.step(support.images[i], support.labels[i], mask, text)
        bank = build_bank(model, support.images[support.normal], info.masks)
        outputs = Outputs()
        for record in tests.records:
            score_image(model, record, text, bank, options.img_size, outputs)
        results.append(evaluate(outputs))
        print(results[-1].lines(options.obj), flush=True)
        best = max(result.selection() for result in results)
        if options.save_path is not None and results[-1].selection() == best:
            save_adapters(model, options.save_path / f"{options.obj}.pth")
    return results


def save_adapters(model: Model, path: Path) -> None:
    """Write the adapters in the released code's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    heads = {"seg_adapters": model.seg_adapters, "det_adapters": model.det_adapters}
    torch.save({name: adapters.state_dict() for name, adapters in heads.items()}, path)


def main(argv: Sequence[str] | None = None) -> list[Result]:
    """Train with the flags of train_few.py that the baseline has; return every epoch's result."""
    parser = argparse.ArgumentParser(
        description="Few-shot training as the released code does it.", allow_abbrev=False
    )
    parser.add_argument("--obj", required=True, choices=list(CATALOG))
    parser.add_argument("--shot", type=int, default=4)
    parser.add_argument("--epoch", type=int, default=50)
    parser.add_argument("--img_size", type=int, default=240)
    parser.add_argument("--features_list", type=int, nargs="+", default=list(LEVELS))
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--device", default="cpu")
    for name in ("data_path", "fewshot_path", "clip_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--save_path", type=Path)
    return train_few(parser.parse_args(argv))


if __name__ == "__main__":
    main()

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
from dataset.folder import FOREGROUND, Record, load_image, load_mask
from dataset.medical_few import Support, evaluation_set
from dataset.shots import choose_shots
from prompt import STATES, sentences


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
        self.seg, self.det = (
            torch.optim.Adam(list(b.parameters()), lr=rate, betas=(0.5, 0.999)) for b in branches
        )

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
    nearest = [
        (1 - cosines(rows, t[1:])).min(dim=0).values for t, rows in zip(tokens, bank, strict=True)
    ]
    return torch.stack([enlarge(values[:, None], side)[0, 0] for values in nearest]).sum(dim=0)


def text_map(levels: Sequence[Tensor], side: int) -> Tensor:
    """Abnormal probability of each pixel, summed over levels: L times [N, 2] -> [S, S]."""
    return torch.stack([enlarge(level, side).softmax(dim=1)[0, 1] for level in levels]).sum(dim=0)


@torch.no_grad()
def score_image(
    model: Model, record: Record, text: Tensor, bank: Sequence[Tensor] | None, side: int, kept: Kept
) -> None:
    """Score one image from disk; without a bank (zero-shot) there is no memory branch."""
    image, masks = kept.add(record, side).to(model.device), record.object.masks
    with model.autocast():
        _, seg, det, _ = model(image)
        if masks:
            kept.text_maps.append(
                text_map([logits(t, text) for t in seg], side).float().cpu().numpy()
            )
        if not masks or bank is None:
            kept.text_scores.append(
                sum(float(logits(t, text).softmax(dim=-1)[:, 1].mean()) for t in det)
            )
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

    def selection(self) -> float:
        """What the released code keeps a checkpoint by."""
        return self.image_auroc + (self.pixel_auroc or 0.0)

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


def train_few(options: argparse.Namespace) -> list[Result]:
    """Few-shot training with a bank and a test pass after every epoch; 0 epochs: one test of the random adapters."""
    model = load(
        options.clip_path, options.img_size, options.features_list, options.device, options.seed
    )
    known = object_info(options.obj)
    shots = choose_shots(options.data_path, known, options.shot, lists=options.fewshot_path)
    support = Support(shots, known, options.img_size)
    tests = evaluation_set(options.data_path, known, options.img_size)
    text, training = text_features(model, known.noun), Training(model, options.learning_rate)
    results: list[Result] = []
    for _ in range(max(options.epoch, 1)):
        for i in torch.randperm(len(support)).tolist() if options.epoch else ():
            training.step(
                support.images[i],
                support.labels[i],
                support.masks[i] if known.masks else None,
                text,
            )
        bank, kept = build_bank(model, support.images[support.normal], known.masks), Kept()
        for record in tests.records:
            score_image(model, record, text, bank, options.img_size, kept)
        results.append(evaluate(kept))
        print(results[-1].lines(options.obj), flush=True)
        best = max(result.selection() for result in results)
        if options.save_path is not None and results[-1].selection() == best:
            options.save_path.mkdir(parents=True, exist_ok=True)
            branches = {"seg_adapters": model.seg_adapters, "det_adapters": model.det_adapters}
            state = {name: branch.state_dict() for name, branch in branches.items()}
            torch.save(state, options.save_path / f"{options.obj}.pth")
    return results


def main(argv: Sequence[str] | None = None) -> list[Result]:
    """The flags of train_few.py that this needs; returns every epoch's result."""
    parser = argparse.ArgumentParser(
        description="Few-shot training as the released code does it.", allow_abbrev=False
    )
    parser.add_argument("--obj", required=True, choices=list(CATALOG))
    parser.add_argument("--shot", type=int, default=4)
    parser.add_argument("--epoch", type=int, default=50)
    parser.add_argument("--img_size", type=int, default=240)
    parser.add_argument("--features_list", type=int, nargs="+", default=[6, 12, 18, 24])
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=111)
    parser.add_argument("--device", default="cpu")
    for name in ("data_path", "fewshot_path", "clip_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--save_path", type=Path)
    return train_few(parser.parse_args(argv))


if __name__ == "__main__":
    main()

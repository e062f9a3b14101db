"""The files of a run: metrics.json, curves.json, scores.csv and pictures, and the printed lines."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from CLIP.hashing import file_hash, sha256
from dataset.folder import ImageSet
from dataset.shots import Shots
from mvfa.console import show
from mvfa.defaults import ZERO
from mvfa.details import measure, split_curves
from mvfa.environment import Environment
from mvfa.evaluation import Evaluation, Maps
from mvfa.keeper import Keeper
from mvfa.memory import peak_memory
from mvfa.methods.base import Method
from mvfa.options import Options
from mvfa.packing import packs
from mvfa.predictions import Predictions
from mvfa.protocol import protocol_text, training_of
from mvfa.result_folder import replacing
from mvfa.resume import Progress
from mvfa.run_files import CURVES, METRICS, PICTURES, SCORES, sealed
from mvfa.selection import Selection
from mvfa.versions import versions
from utils import write_whole

CSV_ROWS = 500  # rows converted to text at once
MAP_THRESHOLD = 0.5  # of a contour where neither a flag nor a mask gives one


def auroc_lines(options: Options, evaluation: Evaluation) -> str:
    """Format AUROCs as the released code does: few-shot pixels first, zero-shot images first."""
    lines = [f"{options.obj} AUC : {evaluation.image_auroc:.4f}"]
    if evaluation.pixel_auroc is not None:
        position = len(lines) if options.setting == ZERO else 0
        lines.insert(position, f"{options.obj} pAUC : {evaluation.pixel_auroc:.4f}")
    return "\n".join(lines)


def show_aurocs(
    options: Options, env: Environment, evaluation: Evaluation | None, remark: str = ""
) -> None:
    """Print the AUROCs of an evaluation, if there is one, and a remark below them."""
    if evaluation is not None:
        show(auroc_lines(options, evaluation), env.world)
    if remark:
        show(remark, env.world)


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=indent) + "\n"
    write_whole(path, lambda partial: partial.write_text(text))


def image_files(images: ImageSet, data_path: Path) -> list[str]:
    """Return the names of a set's images below the data folder."""
    return [record.image.relative_to(data_path).as_posix() for record in images.records]


def write_scores(out: Path, options: Options, test_set: ImageSet, evaluation: Evaluation) -> None:
    """Write scores.csv: a row an image, scores in [0, 1] after min-max over the test set.

    The score of a branch that the method does not have is empty (memory: in zero-shot), case and
    slice where they are not known. A name that is not UTF-8 stands there as the bytes that it is.
    """
    import pandas as pd  # slow to import, and the last thing that a run needs

    text = evaluation.text_scores
    memory = evaluation.memory_scores
    table = pd.DataFrame(
        {
            "file": image_files(test_set, options.data_path),
            "label": test_set.labels.int().numpy(),
            "score": evaluation.scores.double().numpy(),
            "text_score": None if text is None else text.double().numpy(),
            "memory_score": None if memory is None else memory.double().numpy(),
            "case": [place.case for place in test_set.places],
            "slice": pd.array([place.slice for place in test_set.places], "Int64"),
        }
    )

    def write(part: Path) -> None:
        table.to_csv(part, index=False, chunksize=CSV_ROWS, errors="surrogateescape")

    write_whole(out / SCORES, write)


def image_counts(test_set: ImageSet) -> dict[str, int | None]:
    """Return the normal and abnormal images of a test set, what was published, and its cases.

    None where no number is known: of the published images, and of cases.
    """
    abnormal = int(test_set.labels.sum())
    cases = {place.case for place in test_set.places if place.case is not None}
    return {
        "normal": len(test_set) - abnormal,
        "abnormal": abnormal,
        "published": test_set.records[0].object.test_images or None,
        "cases": len(cases) or None,
    }


def write_results(
    folder: Path,
    options: Options,
    env: Environment,
    method: Method,
    evaluation: Evaluation,
    test_set: ImageSet,
    adapters: Path | None,
    earlier_seconds: float = 0.0,
    **more: Any,
) -> None:
    """Write metrics.json and scores.csv to a folder, which may hold curves.json and pictures.

    `adapters` is the file of the scored adapters, None where they were not saved;
    `earlier_seconds` is the time of a training before it was stopped; `more` goes into metrics.json
    as it is.
    """
    training = options.script.startswith("train")
    decided = {"pack": packs(options, env)} if training else {}
    content: dict[str, Any] = {
        "image_auroc": evaluation.image_auroc,
        "pixel_auroc": evaluation.pixel_auroc,
        "pixel_auroc_bound": evaluation.pixel_bound,
        **more,
        "trained_parameters": method.trained_parameters,
        **test_set.records[0].object.as_dict(),
        "wide_images": test_set.wide_images,
        "options": options.as_dict() | env.as_dict() | decided,
        "versions": versions(),
        "weights": {"file": str(method.weights), "sha256": file_hash(method.weights)},
        "adapters": adapters and {"file": str(adapters), "sha256": sha256(adapters)},
        "processes": env.world.size,
        "seconds": round(earlier_seconds + time.perf_counter() - env.started, 3),
        "peak_memory_bytes": peak_memory(env.device),
    }
    if not training:
        content["protocol"] = protocol_text(content)
    write_scores(folder, options, test_set, evaluation)
    write_json(folder / METRICS, sealed(content, folder), indent=2)


def show_written(options: Options, adapters: Path | None = None) -> None:
    """Say which files a run has written, after its page if --page asks for one.

    `adapters` is the checkpoint of a training.
    """
    out = options.out
    written = [out / name for name in (METRICS, SCORES, CURVES) if (out / name).exists()]
    if (out / PICTURES).is_dir():
        written.append(out / PICTURES)
    if options.page:
        from mvfa.run_page import write_run_page  # imports Plotly, which is slow

        written.append(write_run_page(out))
    if adapters is not None:
        written.append(adapters)
    print("wrote", *written, file=sys.stderr)


def write_training_results(
    options: Options,
    env: Environment,
    kept: Keeper,
    selection: Selection,
    test_set: ImageSet,
    progress: Progress,
    shots: Shots | None = None,
) -> Evaluation:
    """Write what a training was and gave; return the evaluation of the adapters that are kept.

    The state that the training would go on from is removed then. Raises OSError, after all of it,
    if the checkpoint could not be written: the state stays.
    """
    evaluation = kept.evaluation
    assert evaluation is not None, "the kept adapters are tested at the end"
    if env.world.first:
        with replacing(options.out) as folder:
            write_results(
                folder,
                options,
                env,
                kept.method,
                evaluation,
                test_set,
                kept.written,
                earlier_seconds=progress.earlier_seconds,
                **selection.as_dict(),
                train_loss=progress.losses,
                train_objects=list(kept.about["train_objects"] or ()) or None,
                shots=shots and shots.names(),
                empty_masks=test_set.empty_masks,
            )
        show_written(options, kept.written)
    if kept.failure is not None:
        raise kept.failure
    progress.remove()
    return evaluation


def write_test_results(
    options: Options,
    env: Environment,
    method: Method,
    evaluation: Evaluation,
    predictions: Predictions,
    test_set: ImageSet,
    adapters: Path | None,
    **more: Any,
) -> None:
    """Measure a scored test set, draw the pictures asked for, and write all of it."""
    if not env.world.first:
        return
    details = measure(
        evaluation,
        predictions,
        threshold=options.threshold,
        resamples=options.bootstrap,
        seed=options.seed,
        cases=[place.case for place in test_set.places],
        slices=[place.slice for place in test_set.places],
    )
    more["details"], curves = split_curves(details)
    more["empty_masks"] = test_set.empty_masks
    more["test_images"] = image_counts(test_set)
    more["cost"] = {
        "bank_bytes": predictions.bank_bytes,
        "image_seconds": predictions.seconds * env.world.size / len(test_set),
    }
    more["training"] = adapters and training_of(adapters, method.keys)
    with replacing(options.out) as folder:
        write_json(folder / CURVES, curves)
        if options.pictures:
            drawn = draw_pictures(folder, options, evaluation, predictions, test_set, details)
            more["threshold"], more["pictures"] = drawn
        write_results(folder, options, env, method, evaluation, test_set, adapters, **more)
    show_written(options)


def draw_pictures(
    folder: Path,
    options: Options,
    evaluation: Evaluation,
    predictions: Predictions,
    test_set: ImageSet,
    details: Mapping[str, Any],
) -> tuple[float, list[dict[str, Any]]]:
    """Write pictures to a folder; return the threshold of their contours and their entries."""
    from mvfa.panels import SCALE, Picture  # imports OpenCV, which is slow
    from mvfa.pictures import choose_ranked, write_pictures

    maps = Maps(predictions)
    files = image_files(test_set, options.data_path)
    threshold = details["pixel"]["both"]["threshold"] if details["pixel"] else MAP_THRESHOLD
    if options.threshold is not None:
        threshold = options.threshold
    generator = torch.Generator().manual_seed(options.seed)
    labels = test_set.labels
    order = options.picture_order
    pictures = []
    chosen = choose_ranked(evaluation.scores, labels, options.pictures, order, generator)
    for i, rank in chosen:
        text, memory, final = maps.block(slice(i, i + 1))  # each [1, S, S]
        picture = Picture(
            index=i,
            file=files[i],
            label=int(labels[i]),
            score=float(evaluation.scores[i]),
            rank=rank,
            image=test_set[i].image.permute(1, 2, 0).numpy(),  # [S, S, 3]
            mask=test_set.mask(i).numpy() if predictions.masks is not None else None,
            text_map=None if text is None else text[0].cpu().numpy(),
            memory_map=None if memory is None else memory[0].cpu().numpy(),
            final_map=final[0].cpu().numpy(),
        )
        pictures.append(picture)
    scale = SCALE if options.picture_scale == "common" else None
    return threshold, write_pictures(folder, pictures, threshold, scale)

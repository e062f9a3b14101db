"""A test run: a checkpoint, the scores of a test set, everything measured of them, and pictures."""

from pathlib import Path
from typing import Any

import torch

from dataset.folder import ImageSet
from dataset.shots import Shots
from mvfa import checkpoint
from mvfa.details import measure
from mvfa.engine import Predictions
from mvfa.evaluation import Evaluation, Maps
from mvfa.features import FeatureLoader
from mvfa.options import FEW
from mvfa.runner import Run

MAP_THRESHOLD = 0.5  # of a contour where neither a flag nor a mask gives one


class ScoringRun(Run):
    """A run that scores a test set with adapters that are there."""

    def load_adapters(self, shots: Shots | None = None) -> None:
        """Load --ckpt, or the run's own checkpoint (few-shot: else the authors' name), refused if it is another's.

        A checkpoint that was trained on other shots than these is another's, too.
        """
        options = self.options
        path = options.ckpt or self.find_adapters()
        found = checkpoint.load(path)
        if options.ckpt is None:
            expected = self.about()
            if shots is not None and options.adapters_setting == FEW:
                expected["shots"] = shots.names()
            checkpoint.check_about(found, expected)
        checkpoint.apply(self.mvfa, found)
        self.adapters = path

    def find_adapters(self) -> Path:
        """The run's own checkpoint, else (few-shot) the authors' <obj>.pth, else the study's <obj>_<K>.pth.

        Says which one is taken where several are there.
        """
        options = self.options
        own, folder = options.checkpoint, options.save_path
        names = (
            (f"{options.obj}.pth", f"{options.obj}_{options.shot}.pth")
            if options.adapters_setting == FEW
            else ()
        )
        there = [
            path
            for path in dict.fromkeys((own, *(folder / name for name in names)))
            if path.is_file()
        ]
        if len(there) > 1:
            others = ", ".join(map(str, there[1:]))
            self.tell(
                f"note: adapters of {there[0]}; not taken: {others} (pass --ckpt FILE to choose)"
            )
        return there[0] if there else own

    def score(
        self, tests: ImageSet, memory: FeatureLoader | None = None, **more: Any
    ) -> Evaluation:
        """Score the test set, measure it, draw what was asked for, and write all of it."""
        options = self.options
        more["empty_masks"] = self.check_tests(tests).empty
        streams = self.streams(tests, self.test_batch_size, reused=False)
        found = self.predict(streams, self.bank(memory), maps=options.pictures > 0)
        evaluation = self.evaluate(found, streams)
        self.print_result(evaluation)
        if self.world.first:
            more["details"] = measure(
                evaluation,
                found,
                streams,
                threshold=options.threshold,
                resamples=options.bootstrap,
                seed=options.seed,
            )
            if options.pictures:
                more |= self.draw(evaluation, found, tests, more["details"])
        return self.write(evaluation, tests, **more)

    def draw(
        self, evaluation: Evaluation, found: Predictions, tests: ImageSet, details: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the pictures; what metrics.json says of them."""
        from mvfa.pictures import (  # only where pictures are asked for
            SCALE,
            Picture,
            choose,
            write_pictures,
        )

        options, maps, files = self.options, Maps(found, tests.side), self.files(tests)
        measured = details["pixel"]["both"]["threshold"] if details["pixel"] else MAP_THRESHOLD
        threshold = measured if options.threshold is None else options.threshold
        generator = torch.Generator().manual_seed(options.seed)
        pictures = []
        for i in choose(
            evaluation.scores, tests.labels, options.pictures, options.picture_order, generator
        ):
            text, memory, final = (
                None if m is None else m[0].cpu().numpy() for m in maps.block(slice(i, i + 1))
            )
            assert text is not None
            assert final is not None
            picture = Picture(
                index=i,
                file=files[i],
                label=int(tests.labels[i]),
                score=float(evaluation.scores[i]),
                rank=options.picture_order,
                image=tests[i].image.permute(1, 2, 0).numpy(),
                mask=tests.mask(i).numpy() if self.info.masks else None,
                text_map=text,
                memory_map=memory,
                final_map=final,
            )
            pictures.append(picture)
        scale = SCALE if options.picture_scale == "common" else None
        written = write_pictures(options.out, pictures, threshold, scale)
        return {"threshold": threshold, "pictures": written}

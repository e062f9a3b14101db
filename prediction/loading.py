"""Load the detector that the flags name."""

from collections.abc import Sequence

import torch

from mvfa.accelerator import choose_device
from mvfa.detector import Detector
from prediction.discovery import IMAGE, Source
from prediction.options import PredictOptions


def load_detector(options: PredictOptions, sources: Sequence[Source]) -> Detector:
    """Load the detector for some sources, on its device, with its threshold. Raises UserError."""
    device: torch.device = choose_device(options.device)
    return Detector.load(
        options.detector,
        clip_path=options.clip_path,
        device=device,
        precision=options.precision,
        threshold=options.threshold,
        late=[source.kind for source in sources] == [IMAGE],
    )

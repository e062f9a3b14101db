"""Load the detector that the flags name."""

import torch

from mvfa.detector import Detector
from prediction.options import PredictOptions
from utils import choose_device


def load_detector(options: PredictOptions) -> Detector:
    """Load the detector, on its device and with its threshold. Raises UserError."""
    device: torch.device = choose_device(options.device)
    return Detector.load(
        options.detector,
        clip_path=options.clip_path,
        device=device,
        precision=options.precision,
        threshold=options.threshold,
    )

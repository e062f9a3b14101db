"""What a detector's file needs of CLIP: the backbone, and the text features of its noun.

Letters: E joint width.
"""

from collections.abc import Mapping

from torch import Tensor

from CLIP.model import CLIP
from CLIP.weights import create_model
from mvfa.detector_description import damaged
from mvfa.detector_settings import Settings
from mvfa.methods.base import Source

TEXT = "text"  # name of the text features in a detector's file


def load_clip(settings: Settings, source: Source) -> CLIP:
    """Return the frozen CLIP that a detector was made with. Raises UserError."""
    return create_model(
        settings.model_name,
        source.weights,
        image_size=settings.img_size,
        activation=settings.recipe.activation,
        device=source.device,
        precision=source.precision,
        hash_known=True,  # the detector compares it
        late=source.late,
    )


def text_of(tensors: Mapping[str, Tensor], clip: CLIP, source: Source) -> Tensor:
    """Return the text features [E, 2] of a detector's tensors. Raises UserError if they are not."""
    text = tensors.get(TEXT)
    if text is None or text.shape != (clip.config.embed_dim, 2):
        raise damaged(source.path, "its text features have another shape")
    return text

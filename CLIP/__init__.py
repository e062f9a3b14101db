"""CLIP backbone, tokenizer, weight loading and the adapters of MVFA: images and sentences to features."""

from CLIP.adapter import MVFA, Adapter, AdapterForm, TokenFeatures
from CLIP.model import CLIP, ClipConfig, Tower, VisionTransformer
from CLIP.tokenizer import tokenize
from CLIP.weights import create_model

__all__ = [
    "CLIP",
    "MVFA",
    "Adapter",
    "AdapterForm",
    "ClipConfig",
    "TokenFeatures",
    "Tower",
    "VisionTransformer",
    "create_model",
    "tokenize",
]

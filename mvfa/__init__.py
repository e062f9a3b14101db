"""What the scripts share: options, features, scoring, training and evaluation, results.

    from mvfa import Detector

Importing this package imports nothing else: `Detector`, and torch with it, load when asked for.
"""

TYPE_CHECKING = False  # that of typing, which takes milliseconds that a signal may come in
if TYPE_CHECKING:
    from mvfa.detector import Detector

__all__ = ["Detector"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return `Detector`. Raises AttributeError for another name, as a module does."""
    if name == "Detector":
        from mvfa.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what there is, `Detector` included."""
    return sorted({*globals(), *__all__})

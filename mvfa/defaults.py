"""Names, places and defaults that flags and the rest of the program share. No torch."""

from pathlib import Path

from mvfa.methods.catalog import METHODS, MVFA

DEFAULT_MODEL = METHODS[MVFA].model
DEFAULT_EPOCHS = 50
DEFAULT_SEED = 111
STATE_SUFFIX = ".state"  # of an unfinished training, beside its checkpoint
DEFAULT_RESAMPLES = 1_000  # of bootstrap intervals
FEW = "few"
ZERO = "zero"
CHECKPOINTS = {FEW: Path("ckpt/few-shot"), ZERO: Path("ckpt/zero-shot")}  # of MVFA
OTHER_CHECKPOINTS = {name: Path("ckpt") / name for name in METHODS if name != MVFA}
SHOT_LISTS = Path("dataset/fewshot_seed")
PRECISIONS = ("fp32", "bf16", "fp16")
ORDERS = ("worst", "best", "random")  # of pictures
MIXED = "mixed"  # some of the worst, and some random ones
UNUSED = ("batch_size", "epoch", "learning_rate", "save_model")  # of the released test scripts
EXAMPLES = {
    "train_few": ("--obj Brain --shot 4", "--obj Brain --shot 4 --select valid --seed 112"),
    "test_few": ("--obj Brain --shot 4", "--obj Brain --shot 4 --abnormal_shot 0 --pictures 20"),
    "train_zero": ("--obj Liver", "--obj Liver --recipe paper --save_path ckpt/paper"),
    "test_zero": ("--obj Liver", "--obj Liver --ckpt ckpt/zero-shot/Liver.pth --pictures 20"),
}

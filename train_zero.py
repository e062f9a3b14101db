"""Zero-shot training: adapters learn from the test splits of other objects.

    python train_zero.py --obj Liver

In an epoch of n steps the adapters are tested before every step whose index is a multiple of
n // 5, as in the released code, and once more at the end, which its rule must not choose.

With `torchrun --nproc_per_node N train_zero.py ...` a step takes --batch_size images from each
process, and its gradient is the mean over all of them.
"""

from collections.abc import Sequence
from functools import partial

from mvfa.cli import check_flags, command, start

if __name__ == "__main__":
    check_flags("train_zero")  # help and mistakes come before the imports below, which take seconds

import torch

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.catalog import ObjectInfo
from mvfa import checkpoint
from mvfa.console import show
from mvfa.engine import Trainer, predict, train
from mvfa.environment import compile_network, set_up
from mvfa.evaluation import Evaluation, evaluate
from mvfa.features import FeatureLoader
from mvfa.forms import adapter_form, clip_arguments
from mvfa.inputs import (
    load_test_set,
    load_training_set,
    load_valid_sets,
    target_object,
    training_objects,
)
from mvfa.keeper import Keeper
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.methods.mvfa import Mvfa
from mvfa.packing import packed_steps
from mvfa.results import show_aurocs, write_training_results
from mvfa.resume import Progress, records_of
from mvfa.schedule import split
from mvfa.selection import Selection
from mvfa.text_cache import cached_text_by_noun
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Train and test; return the evaluation of the adapters that are kept."""
    options = start("train_zero", argv)
    recipe = options.recipe
    env = set_up(options)  # device, precision, processes
    target = target_object(options, env.world)
    objects = [target, *training_objects(options, target, env.world)]
    generator = set_seed(options.seed)

    # frozen CLIP, and two trainable adapters (seg, det) after each of the given blocks
    clip = create_model(**clip_arguments(options, env))
    form = adapter_form(recipe)
    model = MVFA(clip.visual, clip.config.embed_dim, options.features_list, form, generator)
    text = cached_text_by_noun(clip, objects, env.precision, options.text_cache)  # each [E, 2]
    method = Mvfa(model, text, recipe, target, options.img_size, clip.weight_file)
    checkpoint.initialise(method, options.init)
    compile_network(method, options, env.device)
    fast_steps = packed_steps(method, options, env)
    kept = Keeper(method, options, env.world, objects)

    # test splits of the other objects to train on; the test split; valid/ of the other objects
    train_set = load_training_set(options, objects[1:], env.world)
    test_set = load_test_set(options, target, env.world)
    valid_sets = load_valid_sets(options, objects[1:], env.world)

    # their features up to the first adapter, computed once; the cache goes to the test set first
    loaders = Loaders(method, options, env)

    def score(loader: FeatureLoader, obj: ObjectInfo) -> Evaluation:  # without a memory bank
        return evaluate(predict(method.aim(obj), loader, None), env.world)

    test = partial(score, loaders.scoring(test_set, reused=recipe.select == "test"), target)
    valid = [partial(score, loaders.scoring(data, reused=True), obj) for obj, data in valid_sets]
    train_loader = loaders.training(train_set)
    trainer = Trainer(method, options.learning_rate, env.precision, graphs=options.cuda_graphs)
    selection = Selection(recipe.select, equal_replaces=True)

    def assess(epoch: float, step: int, *, last: bool = False) -> None:
        if selection.skips(last=last):
            return
        tested = selection.assess(epoch, kept, test, valid, last=last, oracle=not last)
        best = f"best epoch found: epoch {int(epoch)} batch {step}\n"
        show_aurocs(options, env, tested, best if selection.is_best else "")

    data = [*train_set.records, *test_set.records, *records_of(valid_sets)]
    progress = Progress(options, env, kept, trainer, generator, selection, data)
    progress.refill(train_loader, len(train_set))
    for epoch in progress.epochs():  # of a training that was stopped, those that are left
        show(f"epoch {epoch} :", env.world)
        order = torch.randperm(len(train_set), generator=generator).tolist()
        for part in progress.parts(split(order, options.batch_size * env.world.size)):
            assess(epoch + part.done, part.step)
            with fast_steps:
                part_loss = train(trainer, train_loader, part.images, f"epoch {epoch + 1}")
            progress.loss += part_loss * len(part.images) / len(order)
        progress.losses.append(progress.loss)
        show(f"Loss:  {progress.loss:.6f}", env.world)
    assess(options.epoch, 0, last=True)  # not in the released code
    show_aurocs(options, env, selection.finish(kept, test))
    return write_training_results(options, env, kept, selection, test_set, progress)


if __name__ == "__main__":
    command(main)

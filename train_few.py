"""Few-shot training: adapters learn from K normal and K abnormal images of one object.

    python train_few.py --obj Brain --shot 4

Every epoch trains on 22 K augmented images in a new order, builds the memory bank of the normal
ones and scores the test split. `--select` decides whose adapters are kept.
"""

from collections.abc import Sequence
from functools import partial

from mvfa.cli import check_flags, command, start

if __name__ == "__main__":
    check_flags("train_few")  # help and mistakes come before the imports below, which take seconds

import torch
from torch import Tensor

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from mvfa import checkpoint
from mvfa.console import show
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.environment import compile_network, set_up
from mvfa.evaluation import Evaluation, evaluate
from mvfa.features import FeatureLoader
from mvfa.forms import adapter_form, clip_arguments
from mvfa.inputs import load_shots, load_test_set, load_valid_sets, target_object
from mvfa.keeper import Keeper
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.methods.making import rival
from mvfa.methods.mvfa import Mvfa
from mvfa.packing import packed_steps
from mvfa.results import show_aurocs, write_training_results
from mvfa.resume import Progress, records_of
from mvfa.selection import Selection
from mvfa.text_cache import cached_text_by_noun
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Train and test; return the evaluation of the adapters that are kept."""
    options = start("train_few", argv)
    recipe = options.recipe
    env = set_up(options)  # device, precision, processes
    target = target_object(options, env.world)
    generator = set_seed(options.seed)

    # frozen CLIP, and two trainable adapters (seg, det) after each of the given blocks
    method = rival(options, env, target, generator)  # None, but for --method: mvfa/methods/
    if method is None:
        clip = create_model(**clip_arguments(options, env))
        form = adapter_form(recipe)
        model = MVFA(clip.visual, clip.config.embed_dim, options.features_list, form, generator)
        text = cached_text_by_noun(clip, [target], env.precision, options.text_cache)  # each [E, 2]
        method = Mvfa(model, text, recipe, target, options.img_size, clip.weight_file)
    checkpoint.initialise(method, options.init)
    compile_network(method, options, env.device)
    fast_steps = packed_steps(method, options, env)

    # K + K shots in eleven augmented versions each; the test split; valid/ without the shots
    shots = load_shots(options, target, env.world)
    kept = Keeper(method, options, env.world, [target], shots)
    train_set = method.support(shots, target, generator)
    test_set = load_test_set(options, target, env.world)
    valid_sets = load_valid_sets(options, [target], env.world, shots)

    # their features up to the first adapter, computed once
    loaders = Loaders(method, options, env)
    train_loader = loaders.support(train_set)
    test_loader = loaders.scoring(test_set, reused=recipe.select == "test")
    valid_loaders = [loaders.scoring(images, reused=True) for _, images in valid_sets]
    normal = train_set.normal
    memory_bank = partial(build_memory, method, train_loader, normal, env.test_batch_size)

    def score(loader: FeatureLoader, bank: list[Tensor]) -> Evaluation:
        return evaluate(predict(method, loader, bank), env.world)

    trainer = Trainer(method, options.learning_rate, env.precision, graphs=options.cuda_graphs)
    selection = Selection(recipe.select)
    data = [*shots.normal, *shots.abnormal, *test_set.records, *records_of(valid_sets)]
    progress = Progress(options, env, kept, trainer, generator, selection, data)
    for epoch in progress.epochs():  # of a training that was stopped, those that are left
        show(f"epoch  {epoch} :", env.world)
        order = torch.randperm(len(train_set), generator=generator).tolist()
        with fast_steps:
            loss = train(trainer, train_loader, order, f"epoch {epoch + 1}")
        progress.losses.append(loss)
        show(f"Loss:  {loss:.6f}", env.world)
        last = epoch + 1 == options.epoch
        if selection.skips(last=last):
            continue
        bank = memory_bank()
        test = partial(score, test_loader, bank)
        valid = [partial(score, loader, bank) for loader in valid_loaders]
        tested = selection.assess(epoch + 1, kept, test, valid, last=last)
        show_aurocs(options, env, tested, "Best result\n" if selection.is_best else "")

    show_aurocs(options, env, selection.finish(kept, lambda: score(test_loader, memory_bank())))
    return write_training_results(options, env, kept, selection, test_set, progress, shots)


if __name__ == "__main__":
    command(main)

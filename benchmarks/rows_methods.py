"""Rows of the other methods: a training step of MadCLIP, an image of DINOv2.

The baselines are not the released code: of MadCLIP it is the same arithmetic done plainly, of
DINOv2 the transformers library's tower of the same sizes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Product, Row, Settings, block_products, each, in_turn
from CLIP.weights import create_model
from mvfa.engine import ADAM_BETAS
from mvfa.methods.dinov2 import PATCH, load_dino
from mvfa.methods.madclip import MadCLIP
from mvfa.methods.madclip_adapters import det_loss, seg_loss
from mvfa.recipe import LEVELS
from synthetic.dino import standin_state, write_dino

NOUN = "Brain"
BATCH = 16  # images of a step
STEPS = 240  # of a training of K = 2: 64 images, 60 epochs
TRAINED = 64  # images of that training
DINO = "dinov2_vits14"
DINO_WIDTH = 384
DINO_BLOCKS = 12
SHORT_SIDE = 448  # pixels


def plain_text(method: MadCLIP) -> Tensor:
    """Compute the text features [E, 2] class by class, all tokens through all blocks."""
    prompts = method.prompts
    assert prompts is not None
    clip = method.clip
    rows = []
    half = len(prompts.ends) // 2
    for own in (slice(0, half), slice(half, None)):
        x = clip.transformer(prompts.embed()[own])  # [n / 2, T, D]
        ends = x[torch.arange(len(x)), prompts.ends[own]]  # [n / 2, D]
        rows.append(clip.ln_final(ends) @ clip.text_projection)
    return prompts.columns(torch.cat(rows))


def madclip(settings: Settings) -> list[Row]:
    """Measure a training step of MadCLIP, and of that a training with two shots of each label."""
    clip = create_model(None, settings.weights, image_size=settings.side, device=settings.device)
    generator = torch.Generator().manual_seed(0)
    method = MadCLIP(
        clip, levels=LEVELS, side=settings.side, masks=True, noun=NOUN, generator=generator
    )
    size = 2 if settings.quick else BATCH
    images = torch.rand(size, 3, settings.side, settings.side, generator=generator)
    labels = (torch.arange(size) % 2).float().to(method.device)
    masks = (images[:, 0] > 0.9).to(method.device)
    taps = method.features(images)
    optimizers = [
        torch.optim.Adam(group, 1e-3, ADAM_BETAS, fused=True) for group in method.groups().values()
    ]

    def step(loss: Callable[[], Tensor]) -> None:
        loss().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def plain() -> Tensor:
        found = method.similarities(method.features(images), plain_text(method), ("det", "seg"))
        return (det_loss(found["det"], labels) + seg_loss(found["seg"], masks)).mean()

    def cached() -> Tensor:
        return method.loss(taps, labels, masks, [NOUN] * size).mean()

    step(cached)  # makes the text tower ready
    times = in_turn(
        {
            "plain": lambda: step(plain),
            "ours": lambda: step(cached),
            "taps": lambda: method.features(images),
        },
        settings.few_repeats,
    )
    once = [TRAINED / size * seconds for seconds in times["taps"]]
    whole = [STEPS * s + o for s, o in zip(times["ours"], once, strict=True)]
    note = "plain: taps and text computed in every step, text class by class"
    return [
        Row(
            f"MadCLIP, step of {size} images", "2x", times["plain"], times["ours"], size, note=note
        ),
        Row(
            "MadCLIP, training of K = 2",
            "2x",
            [STEPS * seconds for seconds in times["plain"]],
            whole,
            note=f"by these times: {STEPS} steps and, ours, taps of {TRAINED} images once",
        ),
    ]


def dino(settings: Settings) -> list[Row]:
    """Measure DINOv2-S on an image as patch memory reads it, beside one large product."""
    from transformers import Dinov2Config, Dinov2Model  # slow to import

    path = write_dino(settings.scratch / "dino.pth", standin_state(DINO))
    tower = load_dino(DINO, path, device=settings.device)
    config = Dinov2Config(
        hidden_size=DINO_WIDTH, num_attention_heads=6, image_size=SHORT_SIDE, patch_size=PATCH
    )
    library = Dinov2Model(config).eval().to(settings.device)
    image = torch.rand(1, 3, SHORT_SIDE, SHORT_SIDE).to(settings.device)
    count = 2 if settings.quick else 8
    product = Product(1024 if settings.quick else 4096, settings.device)

    @torch.no_grad()
    def run(network: torch.nn.Module) -> None:
        for _ in range(count):
            network(image)

    times = in_turn(
        {"library": lambda: run(library), "ours": lambda: run(tower), "product": product},
        settings.repeats,
    )
    patches = (SHORT_SIDE // PATCH) ** 2
    embedding = 2 * patches * 3 * PATCH**2 * DINO_WIDTH
    products = embedding + DINO_BLOCKS * block_products(1 + patches, DINO_WIDTH)
    return [
        Row(
            "DINOv2-S, image of 448 px",
            "80 % of the rate",
            each(times["library"], count),
            each(times["ours"], count),
            1,
            (products, products),
            product.rates(times["product"]),
            note="baseline: the transformers library",
        )
    ]

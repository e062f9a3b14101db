"""Both towers against open_clip and transformers with equal weights; every weight format."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from CLIP import model, weight_files
from CLIP.model import ACTIVATIONS, ClipConfig, Tower
from CLIP.tokenizer import tokenize
from CLIP.weights import check_state, create_model, infer_config, model_config, resize_positions
from errors import UserError
from tests.conftest import TINY, TOLERANCE, random_state

SIZES = {
    "tiny": TINY,
    "patch 16, other widths": ClipConfig(96, Tower(128, 3, 2), 16, 3, Tower(64, 2, 1), 77, 49_408),
    "patch 14, deeper": ClipConfig(64, Tower(192, 6, 3), 14, 5, Tower(128, 4, 2), 77, 49_408),
}
SENTENCES = [
    "a photo of a damaged Brain.",
    "perfect",
    "this is the retinal OCT with flaw in the scene.",
]


def network(config, activation="gelu") -> model.CLIP:
    with torch.device("meta"):
        clip = model.CLIP(config, activation)
    clip.load_state_dict(random_state(config), assign=True)
    return clip.eval()


@pytest.fixture(params=SIZES, ids=str)
def config(request):
    return SIZES[request.param]


@pytest.fixture
def images(config):
    side = config.patch_size * config.grid
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equal_open_clip(config, images, activation):
    open_clip = pytest.importorskip("open_clip.model")
    theirs = open_clip.CLIP(
        embed_dim=config.embed_dim,
        vision_cfg={
            "image_size": config.patch_size * config.grid,
            "patch_size": config.patch_size,
            "width": config.vision.width,
            "layers": config.vision.layers,
            "head_width": 64,
        },
        text_cfg={
            "width": config.text.width,
            "heads": config.text.heads,
            "layers": config.text.layers,
        },
        quick_gelu=activation == "quickgelu",
    ).eval()
    theirs.load_state_dict(random_state(config))
    ours, tokens = network(config, activation), tokenize(SENTENCES)
    padded = torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encode_image(images), theirs.encode_image(images), **TOLERANCE[torch.float32]
        )
        torch.testing.assert_close(
            ours.encode_text(tokens), theirs.encode_text(padded), **TOLERANCE[torch.float32]
        )


@pytest.mark.parametrize(
    ("activation", "their_name"), [("gelu", "gelu"), ("quickgelu", "quick_gelu")]
)
def test_equal_transformers(config, images, activation, their_name, tmp_path):
    transformers = pytest.importorskip("transformers")

    def tower(size: Tower) -> dict:
        wide = {
            "hidden_size": size.width,
            "intermediate_size": 4 * size.width,
            "hidden_act": their_name,
        }
        return wide | {"num_hidden_layers": size.layers, "num_attention_heads": size.heads}

    torch.manual_seed(2)
    side = config.patch_size * config.grid
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            projection_dim=config.embed_dim,
            vision_config=tower(config.vision)
            | {"image_size": side, "patch_size": config.patch_size},
            text_config=tower(config.text) | {"eos_token_id": 49_407},
        )
    ).eval()
    save_file(
        {k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "model.safetensors"
    )
    ours = create_model(
        None, tmp_path / "model.safetensors", image_size=side, activation=activation
    )
    tokens = tokenize(SENTENCES)
    with torch.no_grad():
        pooled = theirs.visual_projection(theirs.vision_model(images).pooler_output)
        sentences = theirs.text_projection(theirs.text_model(tokens).pooler_output)
        torch.testing.assert_close(ours.encode_image(images), pooled, **TOLERANCE[torch.float32])
        torch.testing.assert_close(ours.encode_text(tokens), sentences, **TOLERANCE[torch.float32])


class Holder(torch.nn.Module):
    """A scriptable module with the tensors of a state dict under its names."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_every_format_gives_the_same_network(tmp_path):
    state = random_state(TINY)
    published = {k: v.half() for k, v in state.items()} | {"vocab_size": torch.tensor(49_408)}
    torch.jit.script(Holder(published)).save(tmp_path / "archive.pt")
    torch.save(published, tmp_path / "plain.pt")
    torch.save({"state_dict": published}, tmp_path / "nested.pt")
    parallel = {f"module.{name}": value for name, value in published.items()}
    torch.save({"epoch": 3, "model": parallel, "optimizer": {"step": 5}}, tmp_path / "training.pt")
    save_file(published, tmp_path / "file.safetensors")
    save_file(published, tmp_path / "pytorch_model.bin")
    for name in sorted(path.name for path in tmp_path.iterdir()):
        clip = create_model(None, tmp_path / name, image_size=32)
        assert clip.file == tmp_path / name
        assert clip.text_projection.dtype == torch.float16  # until a sentence is encoded
        with clip.text_tower_ready():
            for key, value in clip.state_dict().items():
                torch.testing.assert_close(value, state[key].half().float(), rtol=0, atol=0)
        assert clip.text_projection.dtype == torch.float16  # and again afterwards


@pytest.mark.parametrize("name", ["ViT-L-14-336", "ViT-L-14", "ViT-B-16", "ViT-B-32", "ViT-demo"])
def test_configs_are_read_back_from_shapes(name):
    config = model_config(name)
    with torch.device("meta"):
        assert infer_config(model.CLIP(config).state_dict()) == config


def test_odd_weights_are_refused(tmp_path, monkeypatch):
    state = random_state(TINY)
    cases = {
        "missing": {k: v for k, v in state.items() if k != "visual.ln_pre.bias"},
        "unknown": state | {"visual.extra": torch.zeros(1)},
        "shape": state | {"ln_final.weight": torch.zeros(3)},
        "not those of a CLIP": {"a": torch.zeros(1)},
        "no state dict": {"a": "b"},
    }
    for message, content in cases.items():
        path = tmp_path / f"{message}.pt"
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            create_model(None, path, image_size=32)
    (tmp_path / "text.pt").write_text("not a weight file")
    (tmp_path / "text.safetensors").write_text("not a weight file")
    for path in (tmp_path / "text.pt", tmp_path / "text.safetensors"):
        with pytest.raises(UserError, match="readable"):
            create_model(None, path, image_size=32)
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(UserError, match="does not hold ViT-B-32"):
        create_model("ViT-B-32", tmp_path / "state.pt")
    with pytest.raises(UserError, match="below one patch"):
        create_model(None, tmp_path / "state.pt", image_size=7)
    monkeypatch.setattr(weight_files, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match=r"ViT-L-14-336px.pt; run python prepare_data.py download"):
        create_model("ViT-L-14-336")


def test_a_damaged_published_file_is_refused_in_every_format(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(Holder(random_state(TINY))).save(path)
    with pytest.raises(UserError, match=r"has a published name but not its content: SHA-256"):
        create_model(None, path, image_size=32)
    torch.save(random_state(TINY), path)
    with pytest.raises(UserError, match=r"download it again, or rename it"):
        create_model(None, path, image_size=32)
    save_file(random_state(TINY), path)
    with pytest.raises(UserError, match=r"download it again, or rename it"):
        create_model(None, path, image_size=32)


class Writer(torch.nn.Module):
    """A module that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path: str = path
        self.held = torch.zeros(4, dtype=torch.uint8)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        self.held = torch.from_file(self.path, True, 4, dtype=torch.uint8)
        self.held.copy_(torch.tensor([112, 119, 110, 33]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("default_place", [False, True])
def test_an_archive_is_not_run(tmp_path, monkeypatch, default_place):
    """The one here would write a file of its own choosing."""
    written = tmp_path / "written"
    evil = tmp_path / ("ViT-L-14-336px.pt" if default_place else "evil.pt")
    torch.jit.script(Writer(str(written))).save(evil)
    monkeypatch.setattr(weight_files, "WEIGHTS", tmp_path)
    message = (
        "has a published name"
        if default_place
        else r"evil\.pt is not a readable weight file: the code of its class .*Writer would have"
    )
    with pytest.raises(UserError, match=message):
        create_model("ViT-L-14-336" if default_place else None, None if default_place else evil)
    assert not written.exists()
    torch.jit.load(evil)
    assert written.read_bytes() == b"pwn!"  # it is what it is meant to be


def test_the_last_network_is_shared_until_its_file_changes(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(random_state(TINY), path)
    first = create_model(None, path, image_size=32)
    assert create_model(None, path, image_size=32, device=torch.device("cpu")) is first
    assert not any(p.requires_grad for p in first.parameters())
    assert create_model(None, path, image_size=40) is not first
    again = create_model(None, path, image_size=32)
    assert again is not first  # only the last one is cached
    torch.save(random_state(TINY, seed=1), tmp_path / "new.pt")
    os.utime(tmp_path / "new.pt", ns=(0, 0))
    (tmp_path / "new.pt").replace(path)
    changed = create_model(None, path, image_size=32)
    assert not torch.equal(changed.visual.proj, again.visual.proj)


def test_sentences_are_encoded_as_one_by_one(tiny):
    features = tiny.encode_sentences(SENTENCES)
    assert features.dtype == torch.float32
    with torch.no_grad():
        single = torch.cat([tiny.encode_text(tokenize([text])) for text in SENTENCES])
    torch.testing.assert_close(features, single, **TOLERANCE[torch.float32])


def test_positions_keep_the_class_and_the_mean():
    positions = torch.randn(1 + 6 * 6, 8)
    resized = resize_positions(positions, 4)
    assert resized.shape == (17, 8)
    torch.testing.assert_close(resized[0], positions[0])
    constant = resize_positions(torch.ones(37, 8), 9)
    torch.testing.assert_close(constant, torch.ones(82, 8))
    assert resize_positions(positions, 6) is positions


def test_configs_name_their_files():
    for path in weight_files.CONFIGS.glob("*.json"):
        content = json.loads(path.read_text())
        assert content["url"] is None or content["sha256"] in content["url"]


def test_state_check_names_the_first():
    with pytest.raises(UserError, match=r"things do not fit: b has shape \[2\], allowed is \[1\]"):
        check_state({"b": torch.zeros(2)}, {"b": torch.zeros(1)}, "things")

"""The towers of DINOv2 against the transformers library, and their files."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from CLIP.weight_files import DEMO_DINO, DINO_MODELS
from errors import UserError
from mvfa.methods.dinov2 import GRID, PATCH, load_dino
from synthetic.dino import shapes_of, standin_state, write_demo_dino, write_dino

TOLERANCE = 1e-4  # relative to the largest value
FAINT = 0.01  # of hidden tokens, all through the tower: so small that the norms' epsilon counts
SMALL = "dinov2_vits14"
WITH_REGISTERS = "dinov2_vits14_reg"
SHAPES = {"square": (448, 448), "oblong": (448, 616), "own grid": (518, 518)}  # pixels
NAMES = {  # of a block's parameters: published, and in transformers
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@pytest.fixture(scope="module", params=[SMALL, WITH_REGISTERS])
def model(request, tmp_path_factory):
    """Return a tower of stand-in weights, and these weights."""
    state = standin_state(request.param)
    for name in state:
        if name.endswith(("_token", "_tokens", "pos_embed", "gamma")) or "patch_embed" in name:
            state[name] *= FAINT
    path = write_dino(tmp_path_factory.mktemp("dino") / "weights.pth", state)
    return load_dino(request.param, path), state


ATTENTION = {  # names of query, key, value, output: of transformers before 5, and since
    "attention.attention.query": ("query", "key", "value", "attention.output.dense"),
    "attention.q_proj": ("q_proj", "k_proj", "v_proj", "attention.o_proj"),
}


def their_names(state, names):
    """Return weights by the names of the transformers library, some of which are `names`."""
    first = next(n for n in ATTENTION if f"encoder.layer.0.{n}.weight" in names)
    *inputs, output = ATTENTION[first]
    before = first.rpartition(".")[0]
    found = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": state["mask_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    if "register_tokens" in state:
        found["embeddings.register_tokens"] = state["register_tokens"]
    for block in range(12):
        own = f"blocks.{block}."
        their = f"encoder.layer.{block}."
        for kind in ("weight", "bias"):
            thirds = state[f"{own}attn.qkv.{kind}"].chunk(3)
            for name, third in zip(inputs, thirds, strict=True):
                found[f"{their}{before}.{name}.{kind}"] = third
            found[f"{their}{output}.{kind}"] = state[f"{own}attn.proj.{kind}"]
            for ours, theirs in NAMES.items():
                found[f"{their}{theirs}.{kind}"] = state[f"{own}{ours}.{kind}"]
        for number in (1, 2):
            found[f"{their}layer_scale{number}.lambda1"] = state[f"{own}ls{number}.gamma"]
    return found


def their_tokens(state, images, table=None):
    """Return the patch tokens of the transformers library; `table`: positions to use instead."""
    registers = "register_tokens" in state
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "patch_size": PATCH, "image_size": 518}
    if registers:
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=4, **sizes)
        network = transformers.Dinov2WithRegistersModel(config)
    else:
        network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    network.load_state_dict(their_names(state, network.state_dict()))
    if table is not None:
        network.embeddings.interpolate_pos_encoding = lambda *_: table
    with torch.no_grad():
        found = network.eval()(images).last_hidden_state
    return found[:, 5 if registers else 1 :]


@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_equal_those_of_transformers(model, shape):
    tower, state = model
    images = torch.randn(1, 3, *SHAPES[shape], generator=torch.Generator().manual_seed(1))
    rows, columns = (side // PATCH for side in SHAPES[shape])
    # without registers the library scales the table by its size, the released code by a scale:
    # the rest is compared with the released table (tested below)
    other = tower.register_tokens is None and (rows, columns) != (GRID, GRID)
    table = tower.positions(rows, columns) if other else None
    with torch.no_grad():
        own = tower(images)
    theirs = their_tokens(state, images, table)
    assert own.shape == (1, rows * columns, 384)
    assert (own - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


@pytest.mark.parametrize("grid", [(32, 32), (32, 64), (37, 40)])
def test_positions_are_sampled_by_scale_or_by_size(model, grid):
    tower, state = model
    square = state["pos_embed"][:, 1:].reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    if tower.register_tokens is None:
        scale = tuple((side + 0.1) / GRID for side in grid)
        table = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
    else:
        table = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
    patches = table.permute(0, 2, 3, 1).flatten(1, 2)
    expected = torch.cat([state["pos_embed"][:, :1], patches], dim=1)
    torch.testing.assert_close(tower.positions(*grid), expected)


def test_a_grid_as_trained_takes_the_table_as_it_is(model):
    tower, state = model
    assert torch.equal(tower.positions(GRID, GRID), state["pos_embed"])


def test_published_sizes():
    counts = {
        name: sum(torch.Size(shape).numel() for shape in shapes_of(name).values())
        for name in (SMALL, "dinov2_vitb14", "dinov2_vitl14")
    }
    assert counts == {SMALL: 22_056_576, "dinov2_vitb14": 86_580_480, "dinov2_vitl14": 304_368_640}
    assert len(shapes_of(SMALL)) == 175


@pytest.fixture
def small(tmp_path):
    """Return the demo's weights and where to write others."""
    path = write_demo_dino(tmp_path)
    return torch.load(path, weights_only=True), tmp_path / "changed.pth"


DAMAGE = {
    "missing": (lambda s: s.pop("blocks.1.ls1.gamma"), "1 missing, blocks.1.ls1.gamma first"),
    "unknown": (lambda s: s.update(head=torch.zeros(2)), "1 unknown, head first"),
    "shape": (lambda s: s.update(pos_embed=torch.zeros(1, 257, 64)), r"pos_embed has shape \[1"),
    "no tower": (lambda s: s.pop("cls_token"), "are not those of a DINOv2"),
    "width": (lambda s: s.update(cls_token=torch.zeros(1, 1, 65)), "are not those of a DINOv2"),
    "not finite": (lambda s: s["norm.bias"].fill_(float("nan")), "not finite"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_files_that_do_not_fit_are_one_line(small, kind):
    state, path = small
    change, message = DAMAGE[kind]
    change(state)
    write_dino(path, state)
    with pytest.raises(UserError, match=message) as error:
        load_dino(None, path)
    assert "\n" not in str(error.value)


def test_a_file_of_another_model_is_refused(small):
    state, path = small
    write_dino(path, state)
    with pytest.raises(UserError, match=f"does not hold {SMALL}"):
        load_dino(SMALL, path)


def test_names_of_other_backbones_are_refused():
    with pytest.raises(UserError, match="ViT-L-14-336 is no DINOv2; known: dinov2_vits14"):
        load_dino("ViT-L-14-336", None)


def test_a_missing_file_names_its_address(monkeypatch, tmp_path):
    monkeypatch.setattr("CLIP.weight_files.WEIGHTS", tmp_path)
    with pytest.raises(UserError, match=r"dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits"):
        load_dino(SMALL, None)
    with pytest.raises(UserError, match=r"python -m synthetic.dino"):
        load_dino(DEMO_DINO, None)


def test_files_lie_where_they_are_published():
    assert DINO_MODELS["dinov2_vitl14_reg"]["file"] == "dinov2_vitl14_reg4_pretrain.pth"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_casts_the_large_matrices_only(small, precision):
    state, path = small
    write_dino(path, state)
    tower = load_dino(None, path, precision=precision)
    assert tower.blocks[0].attn.qkv.weight.dtype.itemsize == 2
    assert tower.blocks[0].norm1.weight.dtype == torch.float32
    exact = load_dino(None, path)
    images = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tower(images), exact(images), rtol=0.05, atol=0.05)

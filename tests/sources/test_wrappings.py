"""Whatever people save, the ResNet comes out: each library's own model is saved, loaded, and computes the same."""

from __future__ import annotations

import copy
import io
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from resnet_surgeon.formats.tensors import Initialised
from resnet_surgeon.sources.found import Wrapping
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.wrappings import unwrap
from tests.fixtures import images, small_network
from tests.work import calls

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def features(data: bytes | Path, size: int = 64, **opening: Any) -> torch.Tensor:
    """The feature map of the last stage, as our module computes it."""
    network = rs.open(data, **opening)
    if network.architecture.avgpool:
        network = network.remove(
            layers=[child for child in network.architecture.children if child in ("avgpool", "fc")]
        )
    with torch.no_grad():
        result = rs.load(network.save("features.safetensors", force=True)).eval()(images(size=size))
    assert isinstance(result, torch.Tensor)
    return result


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shaken(model: Any) -> Any:
    """The model in evaluation mode, with batch norms that are not the identity."""
    torch.manual_seed(1)
    for name, buffer in model.named_buffers():
        if "running" in name or name.endswith((".weight", ".bias")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    return model.eval()


def detection() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.faster_rcnn import FasterRCNN

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)  # with frozen batch norms
    model = shaken(FasterRCNN(backbone, num_classes=2))
    return model, lambda x: model.backbone.body(x)["3"]


def segmentation() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    model = shaken(torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True))
    return model, lambda x: model.backbone(x)["out"]


def segmentation_models_pytorch() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    import segmentation_models_pytorch as smp

    model = shaken(smp.Unet("resnet18", encoder_weights=None))
    return model, lambda x: model.encoder(x)[-1]


def transformers() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    from transformers import ResNetConfig, ResNetForImageClassification

    options: Any = {"depths": [2, 1, 1, 1], "layer_type": "bottleneck", "num_labels": 7}
    config = ResNetConfig(**options)
    model = shaken(ResNetForImageClassification(config))
    return model, lambda x: model.resnet(x).last_hidden_state


def fastai() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    from fastai.vision.learner import create_vision_model

    model = shaken(create_vision_model(torchvision.models.resnet18, 5, pretrained=False))
    return model, lambda x: model[0](x)


LIBRARIES = [
    (detection, "torchvision detection", "backbone.body."),
    (segmentation, "torchvision segmentation", "backbone."),
    (segmentation_models_pytorch, "segmentation_models_pytorch", "encoder."),
    (transformers, "transformers", "resnet."),
    (fastai, "fastai", "0."),
]


@pytest.mark.parametrize(("library", "kind", "prefix"), LIBRARIES, ids=[kind for _, kind, _ in LIBRARIES])
def test_a_librarys_own_model_computes_the_same(library: Callable[[], Any], kind: str, prefix: str) -> None:
    model, witness = library()
    data = saved(model.state_dict())
    wrapping = rs.open(data).source.origin.wrapping
    assert wrapping
    assert (wrapping.kind, wrapping.prefix) == (kind, prefix)
    with torch.no_grad():
        torch.testing.assert_close(features(data), witness(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("block", "shape"), [(Bottleneck, (21, 64)), (BasicBlock, (21, 64, 1, 1))], ids=["no convolution", "basic blocks"]
)
def test_what_torchvision_does_not_segment_with_is_not_dilated(
    block: type[BasicBlock | Bottleneck], shape: tuple[int, ...]
) -> None:
    state = prefixed(small_network(block), "backbone.") | {"classifier.4.weight": torch.zeros(shape)}
    network = rs.open(saved({name: tensor for name, tensor in state.items() if ".fc." not in name}), fc="none")
    assert network.source.origin.wrapping == Wrapping(
        "prefixed", None, "backbone.", ("classifier.4.weight",), classifier="none"
    )
    assert [stage.dilation for stage in network.architecture.stages] == [1, 1, 1, 1]


def test_what_fastais_learner_saves_computes_the_same(tmp_path: Path) -> None:
    """With the optimiser's state, in fastai's own kind of list."""
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    from fastai.vision.learner import create_vision_model

    model = create_vision_model(torchvision.models.resnet18, 2, pretrained=False)
    items = [(torch.rand(3, 32, 32), torch.tensor(index % 2)) for index in range(8)]
    learner = Learner(DataLoaders(DataLoader(items, bs=4), DataLoader(items, bs=4)), model, nn.CrossEntropyLoss())
    learner.create_opt()
    path = learner.save(tmp_path / "learner")
    wrapping = rs.open(path).source.origin.wrapping
    assert wrapping
    assert (wrapping.kind, wrapping.key, wrapping.prefix) == ("fastai", "model", "0.")
    with torch.no_grad():
        torch.testing.assert_close(features(path), model.eval()[0](images()), rtol=1e-4, atol=1e-4)


def test_transformers_classifier_is_fc() -> None:
    model, _ = transformers()
    with torch.no_grad():
        torch.testing.assert_close(rs.load(saved(model.state_dict())).eval()(images()), model(images()).logits)


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnext50_32x4d"])
def test_timms_networks_of_this_kind_compute_the_same(name: str) -> None:
    import timm

    model = shaken(timm.create_model(name))
    with torch.no_grad():
        ours = rs.load(saved({"state_dict": model.state_dict(), "epoch": 3, "arch": name, "args": Namespace(lr=1)}))
        torch.testing.assert_close(ours.eval()(images()), model(images()), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_lightning_computes_the_same(tmp_path: Path) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = small_network(classes=4)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            result: torch.Tensor = self.model(batch[0]).sum()
            return result

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9)

    module = Module()
    quiet: Any = dict.fromkeys(["logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"], False)
    trainer = lightning.Trainer(max_steps=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(
        module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 3, 32, 32)), batch_size=2)
    )
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    network = rs.open(tmp_path / "last.ckpt")
    assert network.source.origin.wrapping == Wrapping("PyTorch Lightning", "state_dict", "model.")
    with torch.no_grad():
        expected = module.model.eval()(images())
        torch.testing.assert_close(rs.load(tmp_path / "last.ckpt").eval()(images()), expected)


def detectron2_names(name: str) -> str:
    """What detectron2's converter calls a tensor of torchvision."""
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    return f"backbone.bottom_up.{name if name.startswith('res') else f'stem.{name}'}"


def test_detectron2s_names_are_known(bottleneck: ResNet) -> None:
    state = bottleneck.state_dict().items()
    frozen = {detectron2_names(name): t for name, t in state if "num_batches" not in name and "fc" not in name}
    data = saved({"model": {**frozen, "roi_heads.box_head.fc1.weight": torch.zeros(2)}})
    opened = rs.open(data, assume="bottleneck_stride=conv2")
    wrapping = opened.source.origin.wrapping
    assert wrapping
    assert (wrapping.kind, wrapping.prefix, len(wrapping.left_out)) == ("detectron2", "backbone.bottom_up.", 1)
    with torch.no_grad():
        assert torch.equal(
            features(data, assume="bottleneck_stride=conv2"), nn.Sequential(*list(bottleneck.children())[:-2])(images())
        )


def prefixed(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "resnet.", "a.b.c."]
)
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state", "net", "weights", "ema", "state_dict_ema"])
def test_any_prefix_under_any_key(prefix: str, key: str | None, basic: ResNet) -> None:
    state = prefixed(basic, f"module.{prefix}")
    network = rs.open(saved({key: state, "epoch": 3} if key else state))
    wrapping = network.source.origin.wrapping
    assert wrapping
    assert (wrapping.key, wrapping.prefix, wrapping.left_out) == (key, f"module.{prefix}", ())
    assert network.architecture.heads[0].classes == 10


def test_a_plain_state_dict_is_not_wrapped(basic: ResNet) -> None:
    assert rs.open(saved(basic.state_dict())).source.origin == Origin(file="bytes", container="torch_zip")


def test_sequential_children_are_known(basic: ResNet) -> None:
    cut = nn.Sequential(*list(basic.children())[:-2])
    with torch.no_grad():
        assert torch.equal(features(saved(cut.state_dict())), cut(images()))


@pytest.mark.parametrize(("one", "twin"), [("encoder_q", "encoder_k"), ("base_encoder", "momentum_encoder")])
def test_mocos_queries_are_taken_and_its_head_is_left_out(one: str, twin: str, basic: ResNet) -> None:
    state = {
        **prefixed(small_network(), f"module.{twin}."),
        **prefixed(basic, f"module.{one}."),
        "module.queue": torch.zeros(3),
    }
    network = rs.open(saved({"state_dict": state, "arch": "resnet18"}))
    wrapping = network.source.origin.wrapping
    assert wrapping
    assert (wrapping.kind, wrapping.prefix) == ("MoCo", f"module.{one}.")
    assert f"module.{one}.fc.weight" in wrapping.left_out
    assert network.architecture.output_kind == "embedding"


@pytest.mark.parametrize(
    "head", ["projector.0.weight", "backbone.projection_head.0.weight", "module.head.mlp.0.weight"]
)
def test_a_projection_head_is_left_out_and_said_so(head: str, basic: ResNet) -> None:
    state = {name: tensor for name, tensor in prefixed(basic, "backbone.").items() if ".fc." not in name}
    wrapping = rs.open(saved({**state, head: torch.zeros(3, 3)})).source.origin.wrapping
    assert wrapping
    assert wrapping.left_out == (head,)


def test_missing_counters_are_filled_with_zeros_and_said_so(basic: ResNet) -> None:
    old = {name: tensor for name, tensor in basic.state_dict().items() if "num_batches_tracked" not in name}
    network = rs.open(saved(old))
    wrapping = network.source.origin.wrapping
    assert wrapping
    assert len(wrapping.filled) == len(basic.state_dict()) - len(old)
    model = rs.load(saved(old)).eval()
    assert model.get_buffer("bn1.num_batches_tracked") == 0
    with torch.no_grad():
        assert torch.equal(model(images()), basic(images()))


def test_of_several_one_must_be_chosen(basic: ResNet) -> None:
    other = small_network(classes=3)
    both = saved({"state_dict": basic.state_dict(), "state_dict_ema": other.state_dict()})
    with pytest.raises(CheckpointError, match="holds 2 ResNets, under `state_dict`, `state_dict_ema`"):
        rs.open(both)
    assert rs.open(both, key="state_dict_ema").architecture.heads[0].classes == 3
    assert rs.load(both, key="state_dict_ema")(images()).shape == (2, 3)
    with pytest.raises(CheckpointError, match="no ResNet under the key `model`"):
        rs.open(both, key="model")


def test_twins_under_one_key_are_told_apart_by_prefix(basic: ResNet) -> None:
    twins = saved({**prefixed(basic, "student."), **prefixed(copy.deepcopy(basic), "teacher.")})
    with pytest.raises(CheckpointError, match="under `student`, `teacher`"):
        rs.open(twins)
    assert rs.open(twins, key="teacher").source.origin.wrapping == Wrapping(
        "prefixed", None, "teacher.", tuple(prefixed(basic, "student."))
    )


def test_with_and_without_a_prefix_they_are_two_networks(basic: ResNet) -> None:
    with pytest.raises(CheckpointError, match="holds 2 ResNets, under the top level, `module`"):
        rs.open(saved({**basic.state_dict(), **prefixed(copy.deepcopy(basic), "module.")}))


def test_two_tensors_never_become_one(basic: ResNet) -> None:
    """Of two libraries' names for one module, it is not guessed which is meant."""
    state = {**basic.state_dict(), "layer2.0.shortcut.weight": torch.zeros(128, 64, 1, 1)}
    with pytest.raises(CheckpointError, match="would both be of `layer2.0.downsample.0`"):
        rs.open(saved(state))


def test_what_does_not_belong_inside_a_resnet_is_refused(basic: ResNet) -> None:
    state = {**prefixed(basic, "module."), "module.layer1.0.conv1.extra": torch.zeros(1)}
    with pytest.raises(ArchitectureError, match="unexpected tensor `layer1.0.conv1.extra`"):
        rs.open(saved(state))


def test_the_names_in_the_file_stand_in_the_manifest(basic: ResNet) -> None:
    manifest = rs.open(saved({"model": prefixed(basic, "module.")})).adapt(1).manifest()
    assert manifest.tensors["fc.bias"].provenance.tensor == "module.fc.bias"  # type: ignore[union-attr]
    assert manifest.source.wrapping
    assert manifest.source.wrapping.key == "model"


def shards(model: nn.Module, folder: Path) -> Path:
    """A sharded checkpoint, as transformers and accelerate write it."""
    import json

    state = list(model.state_dict().items())
    parts = {"model-00001-of-00002.safetensors": dict(state[:50]), "model-00002-of-00002.safetensors": dict(state[50:])}
    for name, part in parts.items():
        save_file(part, folder / name)
    index = {"metadata": {}, "weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder / "model.safetensors.index.json"


def test_a_sharded_checkpoint_is_one_network(basic: ResNet, tmp_path: Path) -> None:
    import hashlib

    path = shards(basic, tmp_path)
    with torch.no_grad():
        assert torch.equal(rs.load(path).eval()(images()), basic(images()))
    digest = hashlib.sha256(
        b"".join(item.read_bytes() for item in [path, *sorted(tmp_path.glob("model-*"))])
    ).hexdigest()
    assert rs.open(path).manifest().source.sha256 == digest


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("model-00002-of-00002", "model-00003-of-00002", "no such file"),
        ("model-00002-of-00002.safetensors", "../model.safetensors", "is not a file beside it"),
        ('"fc.bias": "model-00002', '"fc.bias": "model-00001', "is not in its shard"),
        ('"fc.bias"', '"fc.bais"', "is not in its shard"),
        (',\n    "fc.bias": "model-00002-of-00002.safetensors"', "", "`fc.bias`, which the index does not list there"),
        ("weight_map", "weights", "not the index of a sharded checkpoint"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(
    old: str, new: str, reason: str, basic: ResNet, tmp_path: Path
) -> None:
    path = shards(basic, tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((CheckpointError, rs.AccessError), match=reason):
        rs.open(path)


def test_a_web_of_references_is_walked_once(basic: ResNet) -> None:
    inner: dict[str, Any] = {"state_dict": basic.state_dict()}
    for _ in range(3):
        inner = dict.fromkeys([str(number) for number in range(1000)], inner)
    inner["itself"] = inner
    network = rs.open(saved(inner))
    assert network.source.origin.wrapping == Wrapping("nested", "0.0.0.state_dict")


def test_two_paths_that_read_alike_are_two_networks() -> None:
    """`--key a.b` could mean either, so the second has a number."""
    state = small_network().state_dict()
    with pytest.raises(CheckpointError, match="holds 2 ResNets"):
        rs.open(both := saved({"a.b": state, "a": {"b": {name: tensor + 0 for name, tensor in state.items()}}}))
    for name in ("a.b", "a.b#2"):
        assert rs.open(both, key=name).architecture


def test_a_message_names_ten_places_at_most() -> None:
    state = {f"m{number}.layer1.0.conv1.weight": torch.zeros(1) for number in range(60)}
    with pytest.raises(CheckpointError, match=r"holds 60 ResNets, under `m0`, .*`m9` and 50 more"):
        rs.open(saved(state))


def test_what_lies_beside_a_network_is_passed_over_in_proportion() -> None:
    """A log, an optimizer's state: whatever has keys."""
    tensor = Initialised("F32", (1,), Constant(0.0), 0, "x")

    def work(count: int) -> int:
        root = {"model": {"layer1.0.conv1.weight": tensor}, "log": {str(number): {} for number in range(count)}}
        return calls(lambda: unwrap(root))

    assert work(20_000) < 2.5 * work(10_000)


def test_keys_that_lead_round_in_circles_take_no_time(tmp_path: Path) -> None:
    root: dict[str, object] = {}
    root |= {"a": root, "a.a": root, ".".join(["a"] * 60) + ".b": small_network().state_dict()}
    torch.save(root, tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth").architecture.in_channels == 3


def test_more_networks_than_any_file_holds_are_refused(tmp_path: Path) -> None:
    one, vector = torch.zeros(1, 1, 1, 1), torch.zeros(1)
    names = {"conv1.weight": one, "bn1.weight": vector, "layer1.0.conv1.weight": one}
    torch.save({f"n{i}.{name}": tensor for i in range(65) for name, tensor in names.items()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="it holds 65 ResNets, more than 64"):
        rs.open(tmp_path / "a.pth")

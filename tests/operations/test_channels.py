"""adapt by meaning: every channel is made from those that it names, as torch makes it, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import resnet_surgeon as rs
from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.variants import resnet
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, Stored, content
from resnet_surgeon.manifest import operation_from_record, operation_record
from resnet_surgeon.operations.adapt import Adapt
from resnet_surgeon.operations.checkpoint import Checkpoint
from resnet_surgeon.operations.presets import PRESETS
from tests.fixtures import Run

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
RGB = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, 224, "bilinear")


def numbers(*shape: int, dtype: str = "F32", seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DTYPES[dtype])


def lazy(tensor: Tensor) -> LazyTensor:
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    dtype = next(name for name, kind in DTYPES.items() if kind == tensor.dtype)
    return Stored(dtype, tuple(tensor.shape), OpenFile.spooled(data, "test"), 0)


def checkpoint(weight: Tensor, preprocessing: Preprocessing | None = None, names: tuple[str, ...] = ()) -> Checkpoint:
    """Of conv1 and bn1's running_mean alone, which is all that adapt touches."""
    architecture = replace(resnet("basic", (1, 1, 1, 1)), in_channels=weight.shape[1])
    tensors = {"conv1.weight": lazy(weight), "bn1.running_mean": lazy(numbers(64, seed=5))}
    return Checkpoint(architecture, tensors, preprocessing, channel_names=names)


def adapted(before: Checkpoint, **options: Any) -> Checkpoint:
    return Adapt(**options).resolved(before).apply(before)


def filters(after: Checkpoint, name: str = "conv1.weight") -> Tensor:
    made = after.tensors[name]
    return torch.frombuffer(bytearray(content(made)), dtype=DTYPES[made.dtype]).reshape(made.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_channel_is_what_torch_makes_of_those_it_names(dtype: str) -> None:
    weight = numbers(64, 3, 7, 7, dtype=dtype)
    after = adapted(checkpoint(weight), channels="R,G,B,N=R,T=mean,D=zero,Y=0.5*R+0.5*G-2*B")
    made, wide = filters(after), weight.double()
    assert after.channel_names == ("R", "G", "B", "N", "T", "D", "Y")
    assert torch.equal(made[:, :4], weight[:, [0, 1, 2, 0]])  # to the bit
    assert not made[:, 5].any()
    matrix = torch.tensor([[1 / 3] * 3, [0.5, 0.5, -2.0]], dtype=torch.float64)
    expected = torch.einsum("ochw,nc->onhw", wide, matrix).to(weight.dtype)
    torch.testing.assert_close(made[:, [4, 6]], expected)


def test_an_old_channel_keeps_the_bits_of_a_number_that_is_none() -> None:
    weight = numbers(64, 3, 7, 7, dtype="F16")
    weight[0, 1, 0, 0] = float("nan")
    weight.view(torch.int16)[0, 2, 0, 0] = 0x7D01
    assert torch.equal(
        filters(adapted(checkpoint(weight), channels="R,B,G,D=zero"))[:, :3].view(torch.int16),
        weight[:, [0, 2, 1]].view(torch.int16),
    )


def test_what_is_drawn_follows_the_law_of_a_convolution_of_so_many_channels() -> None:
    before = checkpoint(numbers(64, 3, 7, 7))
    first, again, other = (filters(adapted(before, channels="R,X=random,G,Z=random", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first[:, [0, 2]], filters(before)[:, :2])
    assert not torch.equal(first[:, 1], other[:, 1])
    bound = (4 * 49) ** -0.5
    assert 0.98 * bound < float(first[:, [1, 3]].abs().max()) <= bound
    assert not torch.equal(first[:, 1], first[:, 3])


def test_channels_that_stay_are_the_very_tensor() -> None:
    before = checkpoint(numbers(64, 3, 7, 7))
    after = adapted(before, channels=["R", "G", "B"])
    assert after.tensors["conv1.weight"] is before.tensors["conv1.weight"]


@pytest.mark.parametrize(
    ("channels", "count", "resolved", "names"),
    [
        ("0,1,2", 5, ("0", "1", "2"), ("0", "1", "2")),
        ("2,0,N=1", 5, ("2", "0", "N=1"), ("0", "1", "N")),
        ("2,0", 3, ("B", "R"), ("B", "R")),
        (["R", " N = 0.25 * G + 0.25*1 "], 3, ("R", "N=0.5*G"), ("R", "N")),
        ({"R": "R", "Q": "-B+1e-3*R"}, 3, ("R", "Q=0.001*R-B"), ("R", "Q")),
        ("T=mean,X=random", 2, ("T=mean", "X=random"), ("T", "X")),
    ],
)
def test_channels_are_written_in_one_way(
    channels: Any, count: int, resolved: Sequence[str], names: Sequence[str]
) -> None:
    before = checkpoint(numbers(64, count, 7, 7))
    operation = Adapt(channels=channels).resolved(before)
    assert (operation.channels, operation.in_channels) == (resolved, len(resolved))
    assert operation.apply(before).channel_names == names
    assert operation_from_record(operation_record(operation)).resolved(before) == operation


def test_names_are_known_to_the_next_operation(checkpoints: Path, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "basic.pth").adapt(channels="R,G,B,N=R").save(tmp_path / "four.safetensors")
    opened = rs.open(path)
    assert opened.manifest().inputs.channel_names == ("R", "G", "B", "N")
    last = opened.remove(last=1).adapt(channels="N,M=N")
    assert last.manifest().inputs.channel_names == ("N", "M")
    assert "channel_names" not in rs.open(checkpoints / "basic.pth").adapt(3).manifest().to_json()
    one_process = rs.open(checkpoints / "basic.pth").adapt(channels="R,G,B,N=R").remove(last=1).adapt(channels="N,M=N")
    assert one_process.manifest().to_json() == last.manifest().to_json()


SHORT = {"naip": "R-G-B-N_R", "rgbd": "R-G-B-D_mean", "rgba": "R-G-B-A_zero", "bgr": "B-G-R"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_list(preset: str) -> None:
    before = checkpoint(numbers(64, 3, 7, 7))
    by_name = Adapt(preset=preset).resolved(before)
    assert by_name == Adapt(channels=PRESETS[preset].channels).resolved(before)
    assert by_name.suffix == f"in{by_name.in_channels}-{SHORT.get(preset, preset)}"


def test_the_bands_of_the_presets_are_where_their_makers_have_them() -> None:
    """Red, green and blue of each, counted from 1."""
    expected = {"sentinel2": (13, 4, 3, 2), "sentinel2-l2a": (12, 4, 3, 2), "landsat8": (7, 4, 3, 2)}
    weight = numbers(64, 3, 7, 7)
    for preset, (count, *bands) in expected.items():
        made = filters(adapted(checkpoint(weight), preset=preset))
        assert made.shape[1] == count
        assert torch.equal(made[:, [band - 1 for band in bands]], weight)


def test_a_stack_of_still_frames_responds_as_one() -> None:
    weight, image = numbers(64, 3, 7, 7), numbers(1, 3, 32, 32, seed=1)
    made = filters(adapted(checkpoint(weight), preset="stack:4"))
    frames = functional.conv2d(image.repeat(1, 4, 1, 1), made)
    torch.testing.assert_close(frames, functional.conv2d(image, weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fill", "others"), [(None, "mean"), ("mean", "mean"), ("zero", "zero"), ("random", "random"), ("copy", "R")]
)
def test_bands_are_counted_from_one(fill: Any, others: str) -> None:
    operation = Adapt(5, rgb=[4, 3, 2], fill=fill).resolved(checkpoint(numbers(64, 3, 7, 7)))
    last = "G" if fill == "copy" else others
    assert operation.channels == (f"band1={others}", "B", "G", "R", f"band5={last}")
    assert (operation.rgb, operation.fill) == (None, None)


@pytest.mark.parametrize("channels", ["R,G,B,N=R", "Y=0.299*R+0.587*G+0.114*B", "R,X=random,T=mean"])
def test_the_response_to_a_flat_image_is_kept(channels: str) -> None:
    """Of filters that respond to every channel alike; what is drawn is judged by nobody."""
    weight = numbers(64, 1, 7, 7).expand(64, 3, 7, 7)
    kept = [not item.endswith("random") for item in channels.split(",")]
    made = filters(adapted(checkpoint(weight), channels=channels, scale="response"))
    torch.testing.assert_close(made[:, kept].sum(1), weight.sum(1), rtol=1e-5, atol=1e-5)


def test_mean_and_std_follow_what_channels_are_made_from() -> None:
    before = checkpoint(numbers(64, 3, 7, 7), RGB)
    after = adapted(before, channels="B,N=0.5*R,Y=0.25*R+0.75*G,T=mean,D=zero", mean="D=0.1", std={"D": 0.2})
    assert after.preprocessing == Preprocessing(
        (0.406, 0.485, 0.46325, 0.449, 0.1), (0.225, 0.229, 0.22525, 0.226, 0.2), 256, 224, "bilinear"
    )


@pytest.mark.parametrize("channels", ["R,D=zero", "R,D=random", "R,D=R-G"])
def test_of_a_channel_made_of_nothing_they_are_not_known(channels: str) -> None:
    before = checkpoint(numbers(64, 3, 7, 7), RGB)
    assert adapted(before, channels=channels).preprocessing is None
    with pytest.raises(OperationError, match="mean or std of D is not known") as caught:
        adapted(before, channels=channels, mean="D=0.5")
    assert caught.value.hint == "state them: `--mean D=0.5 --std D=0.25`"


def test_stated_for_all_they_need_not_be_known() -> None:
    after = adapted(checkpoint(numbers(64, 3, 7, 7)), in_channels=2, mean=[0.1, 0.2], std=[1, 2])
    assert after.preprocessing == Preprocessing((0.1, 0.2), (1.0, 2.0), None, None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_folded_normalization_computes_the_same_within_the_border(dtype: str) -> None:
    weight, image = numbers(64, 3, 7, 7, dtype=dtype), numbers(2, 3, 24, 24, seed=1).sigmoid().double()
    before = checkpoint(weight, RGB)
    after = adapted(before, channels="R,G,B,N=R", fold_normalization=True)
    assert after.preprocessing == Preprocessing((0.0,) * 4, (1.0,) * 4, 256, 224, "bilinear")
    four = image[:, [0, 1, 2, 0]]
    mean, std = (torch.tensor([*of_each, of_each[0]]).double().reshape(4, 1, 1) for of_each in (RGB.mean, RGB.std))
    ours, theirs = (
        functional.conv2d(pixels, filters(network).double()) - filters(network, "bn1.running_mean")[:, None, None]
        for network, pixels in ((after, four), (adapted(before, channels="R,G,B,N=R"), (four - mean) / std))
    )
    tolerance = {"F64": 1e-5, "F32": 1e-5, "F16": 1e-2, "BF16": 5e-2}[dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=10 * tolerance)


WRONG: dict[str, tuple[Mapping[str, Any], str]] = {
    "nothing": ({}, "nothing says which channels"),
    "two lists": ({"channels": "R", "preset": "bgr"}, "`--channels` and `--preset` both say"),
    "another count": ({"in_channels": 3, "channels": "R"}, "`--in-ch 3`, but `--channels` lists 1"),
    "a number that may be a count": ({"channels": "1"}, "`--channels 1` may be how many channels there are"),
    "a count of a preset": ({"in_channels": 3, "preset": "bgr"}, "`--preset` says how many"),
    "init": ({"channels": "R", "init": "scaled"}, "`--init` makes every filter alike"),
    "scale": ({"in_channels": 1, "scale": "response"}, "`--scale` goes with"),
    "fill": ({"in_channels": 4, "fill": "zero"}, "`--fill` goes with `--rgb`"),
    "bands without a count": ({"rgb": [1, 2, 3]}, "does not say how many bands"),
    "band 0": ({"in_channels": 4, "rgb": [0, 1, 2]}, r"rgb\[0\] must be a whole number of at least 1"),
    "a band twice": ({"in_channels": 4, "rgb": [1, 1, 2]}, "are not three of 4 bands"),
    "a band too far": ({"in_channels": 4, "rgb": [5, 1, 2]}, "are not three of 4 bands"),
    "a preset": ({"preset": "sentinel3"}, "preset must be one of sentinel2,"),
    "no frames": ({"preset": "stack:0"}, "preset must be one of"),
    "a name that is a number": ({"channels": "R,4=R"}, "a name has letters"),
    "a word for a name": ({"channels": "mean=R"}, "a name has letters"),
    "a word alone": ({"channels": "R,zero"}, "a new channel has a name"),
    "no channel": ({"channels": ""}, "neither a channel nor"),
    "made of nothing": ({"channels": "N="}, "is no sum of channels"),
    "no sign": ({"channels": "N=0.5*R0.5*G*2"}, "is no sum of channels"),
    "no weight": ({"channels": "N=nan*R"}, "is no sum of channels"),
    "a large weight": ({"channels": "N=1e9*R"}, "a weight lies between"),
    "code": ({"channels": "N=__import__('os')"}, r"channels\[0\] must be a channel"),
    "a number for a list": ({"channels": 3}, "must be text"),
    "a mean that is none": ({"in_channels": 1, "mean": "nan"}, "nan is not a number"),
    "no std": ({"in_channels": 1, "std": 0}, "not a positive number"),
    "a word for a mean": ({"in_channels": 1, "mean": "bright"}, "`bright` is no number"),
    "both ways": ({"channels": "R,G", "mean": "R=0.5,0.4"}, "a number for each channel, or all by name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_says_what_is_right(name: str) -> None:
    options, reason = WRONG[name]
    with pytest.raises(UsageError, match=reason):
        Adapt(**options)


MISFITS: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "an unknown name": ({"channels": "r,G"}, "no channel `r`", "did you mean `R`? it has R, G, B; by number"),
    "too far": ({"channels": "R,N=7"}, "no channel `7`", "it has R, G, B; by number they are 0 to 2"),
    "a name twice": ({"channels": "R,0"}, "two channels are called `R`", "give one another name: `R_2=R`"),
    "a stranger's mean": ({"channels": "R,G", "mean": "N=0.5"}, "no channel `N`", "it has R, G"),
    "too few means": ({"channels": "R,G", "mean": [0.5]}, "1 numbers for `--mean`, and 2 channels", "`--mean G=0.5`"),
    "no sum": ({"channels": "N=R-G", "scale": "response"}, "a positive sum", "as written"),
    "nothing known": ({"channels": "R", "fold_normalization": True}, "of R is not known", "--mean R=0.5 --std"),
    "folded before": (
        {"channels": "R", "fold_normalization": True, "mean": 0.0, "std": 1.0}, "from 0 to 1 as they are", "out"
    ),
    "too many": ({"preset": "stack:60000"}, "too large to write down", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_the_network_cannot_take_is_refused_with_what_it_can(name: str) -> None:
    options, reason, hint = MISFITS[name]
    with pytest.raises(OperationError, match=reason) as caught:
        Adapt(**options).resolved(checkpoint(numbers(64, 3, 7, 7)))
    assert hint in (caught.value.hint or "")


def test_folding_takes_a_bn1(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="no bn1"):
        rs.open(checkpoints / "basic.pth").remove(last=9).adapt(1, mean=0.5, std=0.5, fold_normalization=True)


def test_nothing_is_folded_a_second_time(checkpoints: Path) -> None:
    options: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "fold_normalization": True}
    folded = rs.open(checkpoints / "basic.pth").adapt(channels="R,G,B", **options)
    for channels in ({"channels": "R,G,B"}, {"in_channels": 3}):
        with pytest.raises(OperationError, match="this would fold mean and std a second time"):
            folded.adapt(**channels, **options)
    assert folded.adapt(channels="R,X=random", mean="X=0.5", std="X=0.25", fold_normalization=True)
    with pytest.raises(OperationError, match="no bn1") as caught:
        rs.open(checkpoints / "basic.pth").fuse().adapt(channels="R,G,B", **options)
    assert "before you `fuse`" in str(caught.value.hint)


def test_the_command_takes_what_python_takes(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    done = run(
        "adapt", checkpoints / "basic.pth", "--channels", "R,G,B,N=R", "--mean", "0.5,0.4,0.3,0.2", "--std", "1,1,1,2",
        "--fold-normalization", "-q", "-o", "out.safetensors",
    )  # fmt: skip
    assert done.stderr == b""
    expected = rs.open(checkpoints / "basic.pth").adapt(
        channels="R,G,B,N=R", mean=[0.5, 0.4, 0.3, 0.2], std=[1, 1, 1, 2], fold_normalization=True
    )
    assert (tmp_path / "out.safetensors").read_bytes() == expected.save(tmp_path / "py.safetensors").read_bytes()

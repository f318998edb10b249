"""No sound file fails, whatever numbers it holds and whichever way it came."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from resnet_surgeon.verification import activations
from tests.fixtures import small_network
from tests.verification import trial
from tests.verification.draws import DAMAGES, State, published_as, rewrite

DATA = Path(__file__).parents[1] / "data" / "0.1.0"


@pytest.mark.parametrize("seed", range(6))
def test_sound_files_hold_and_lies_do_not(seed: int, tmp_path: Path) -> None:
    trial.run(seed, tmp_path)


def saved(state: State, path: Path) -> Path:
    torch.save(state, path)
    return path


def small_state(**options: Any) -> State:
    return dict(small_network(Bottleneck, (1, 1, 1, 1), width_per_group=16, **options).state_dict())


def operated(network: Network) -> Network:
    return network.adapt(1, init="scaled").heads([3, 5], own="layer3")


def findings(proof: rs.Proof) -> dict[str, str]:
    return {check.name: check.finding for check in proof.checks}


def assert_all_proven(proof: rs.Proof) -> None:
    assert {check.outcome for check in proof.checks} == {"proven"}, str(proof)


@pytest.mark.parametrize("name", ["fc.weight", "fc.bias", "bn1.weight", "conv1.weight", "layer3.0.conv2.weight"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_one_tensor_of_another_dtype(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = small_state()
    state[name] = state[name].to(dtype)
    source = saved(state, tmp_path / "source.pth")
    path = operated(rs.open(source)).save(tmp_path / "model.safetensors")
    assert_all_proven(rs.verify(path, against=source))


DTYPES = itertools.cycle([torch.float32, torch.bfloat16])


@pytest.mark.parametrize(("damage", "dtype"), [*zip(DAMAGES, DTYPES, strict=False)], ids=str)
def test_odd_numbers_in_the_first_layer(damage: str, dtype: torch.dtype, tmp_path: Path) -> None:
    class First:
        """Draws the first of everything."""

        def choice(self, items: list[Any]) -> Any:
            return items[0]

    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in small_state().items()}
    DAMAGES[damage](First(), state)  # type: ignore[arg-type]
    source = saved(state, tmp_path / "source.pth")
    path = operated(rs.open(source)).save(tmp_path / "model.safetensors")
    assert_all_proven(rs.verify(path, against=source))
    assert rs.verify(path).holds


def with_a_nan(tmp_path: Path) -> Path:
    state = small_state()
    state["layer1.0.bn1.weight"][0] = torch.nan
    return saved(state, tmp_path / "source.pth")


def test_numbers_that_are_not_finite_are_told_of_once(tmp_path: Path) -> None:
    source = with_a_nan(tmp_path)
    proof = rs.verify(operated(rs.open(source)).save(tmp_path / "model.safetensors"), against=source)
    (told,) = [check for check in proof.checks if "not finite" in check.finding]
    assert (told.name, told.outcome) == ("finite", "proven")
    assert told.finding.startswith("`layer1.0.bn1.weight` hold numbers that are not finite")


def test_without_the_source_it_is_unproven_that_they_are_its_own(tmp_path: Path) -> None:
    proof = rs.verify(rs.open(with_a_nan(tmp_path)).save(tmp_path / "model.safetensors"))
    assert proof.holds
    assert "finite" in [check.name for check in proof.unproven]


def test_numbers_that_overflow_on_the_way_are_no_fault(tmp_path: Path) -> None:
    state = small_state()
    state["layer1.0.conv1.weight"] *= 1e38
    source = saved(state, tmp_path / "source.pth")
    proof = rs.verify(rs.open(source).remove(last=3).save(tmp_path / "model.safetensors"), against=source)
    assert_all_proven(proof)
    assert "though all numbers are" in findings(proof)["finite"]


# Sources that are published files, and the same bytes under no name.


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """resnet50's published file, as far as the catalogue can tell."""
    return saved(small_state(classes=1000), tmp_path / "resnet50-11ad3fa6.pth")


def copied(path: Path) -> Path:
    shutil.copy(path, path.with_name("copy.pth"))
    return path.with_name("copy.pth")


WAYS: dict[str, Callable[[Path], Path | bytes | io.BytesIO]] = {
    "by name": lambda path: path,
    "a renamed copy": copied,
    "bytes": Path.read_bytes,
    "a stream": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("opened", WAYS)
@pytest.mark.parametrize("given", WAYS)
def test_the_same_bytes_are_the_same_source_under_any_name(
    opened: str, given: str, published: Path, tmp_path: Path
) -> None:
    with published_as(published):
        path = rs.open(WAYS[opened](published)).adapt(2).remove(last=7).save(tmp_path / "model.safetensors")
        assert_all_proven(rs.verify(path, against=WAYS[given](published)))


def test_what_the_catalogue_knows_is_said_with_the_number_of_its_digits(published: Path, tmp_path: Path) -> None:
    with published_as(published):
        path = rs.open(published).remove(last=9).save(tmp_path / "model.safetensors")
        source = findings(rs.verify(path, against=copied(published)))["source"]
    assert "copy.pth has the recorded SHA-256" in source
    assert "all 64 digits" in source
    assert "of that of resnet50 IMAGENET1K_V2 the catalogue has 8 digits, which match" in source


def test_the_name_of_a_file_that_was_not_seen_is_the_manifests_own_word(tmp_path: Path) -> None:
    source = saved(small_state(), tmp_path / "source.pth")
    path = rs.open(source).remove(last=9).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=copied(source))
    assert proof.holds
    assert findings(proof)["source"].endswith("the manifest's own word, unproven: `source.file`")


def test_a_manifest_that_another_json_writer_wrote_again(tmp_path: Path) -> None:
    source = saved(small_state(), tmp_path / "source.pth")
    path = rs.open("resnet18", weights="random").remove(last=7).save(tmp_path / "random.safetensors")
    rewrite(path)
    assert '"value": 1,' in path.with_suffix(".json").read_text("utf-8")
    assert_all_proven(rs.verify(path))
    path = operated(rs.open(source)).save(tmp_path / "model.safetensors")
    rewrite(path)
    assert_all_proven(rs.verify(path, against=source))


def test_more_channels_than_memory_is_there_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On smaller images."""
    monkeypatch.setattr(activations, "_MOST_NUMBERS", 1 << 17)
    source = saved(small_state(), tmp_path / "source.pth")
    path = rs.open(source).adapt(100).remove(last=9).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=source)
    assert_all_proven(proof)
    assert ", 2 of 16x24)" in findings(proof)["forward"]


def test_what_is_too_large_to_work_out_is_unproven(tmp_path: Path) -> None:
    source = saved(small_state(), tmp_path / "source.pth")
    path = rs.open(source).adapt(1).remove(last=9).save(tmp_path / "model.safetensors")

    def edit(manifest: dict[str, Any]) -> None:
        inner = manifest["tensors"]["conv1.weight"]["provenance"]
        inner["formula"] = {"kind": "mean", "old": 3, "new": 60000}
        formula = {"kind": "mean", "old": 60000, "new": 1}
        outer = {"how": "computed", "formula": formula, "inputs": [inner]}
        manifest["tensors"]["conv1.weight"]["provenance"] = outer

    rewrite(path, edit)
    (computed,) = rs.verify(path, against=source).unproven
    assert (computed.name, "which is too large" in computed.finding) == ("computed", True)


def test_random_weights_in_a_file_on_the_way(tmp_path: Path) -> None:
    middle = rs.open("resnet18", weights="random").remove(last=7).save(tmp_path / "middle.safetensors")
    path = rs.open(middle).adapt(1).save(tmp_path / "model.safetensors")
    assert_all_proven(rs.verify(path))
    (source,) = rs.verify(path, against=middle).unproven
    assert (source.name, "leave out `--against`" in source.finding) == ("source", True)


def test_a_file_of_0_1_0(tmp_path: Path) -> None:
    for name in ("small.safetensors", "small.json"):
        shutil.copy(DATA / name, tmp_path)
    proof = rs.verify(tmp_path / "small.safetensors", against=DATA / "small.pth")
    assert_all_proven(proof)

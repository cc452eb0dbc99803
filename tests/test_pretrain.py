import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabels.data.source import ArraySource
from fewlabels.errors import InputError
from fewlabels.methods import METHODS
from fewlabels.models.weights import read_weights
from fewlabels.observe import Observer
from fewlabels.pretrain import PretrainSettings, pretrain, steps_per_epoch
from fewlabels.views.randaugment import randaugment

CPU = torch.device("cpu")


def run(source, folder: Path, method: str = "simsiam", epochs: int = 2, seed: int = 0, views=randaugment):
    settings = PretrainSettings(method, epochs, checkpoint_every=1)
    observer = Observer(method)
    pretrain(source, views, settings, folder, seed, observer, CPU)
    return read_weights(folder / f"epoch-{epochs}" / "method.safetensors")[0], observer


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_going_on_from_a_checkpoint_gives_the_same_weights(method, fmnist, tmp_path: Path):
    source = fmnist.train.first_k(600)
    whole, _ = run(source, tmp_path / "whole", method, epochs=3)
    run(source, tmp_path / "parts", method, epochs=1)
    parts, _ = run(source, tmp_path / "parts", method, epochs=3)
    assert same(whole, parts)


def test_stopped_in_mid_epoch_it_goes_on_from_the_last_whole_checkpoint(fmnist, tmp_path: Path):
    source = fmnist.train.first_k(600)
    whole, _ = run(source, tmp_path / "whole")

    def stops(images, key):
        if key[-1] == steps_per_epoch(600, 256) + 1:  # the second step of the second epoch
            raise KeyboardInterrupt
        return randaugment(images, key)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "stopped", views=stops)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["epoch-1"]
    assert same(whole, run(source, tmp_path / "stopped")[0])


def test_weights_follow_the_seed_alone(fmnist, tmp_path: Path):
    source = fmnist.train.first_k(300)
    torch.manual_seed(1)
    first, _ = run(source, tmp_path / "first", epochs=1)
    torch.manual_seed(2)
    again, _ = run(source, tmp_path / "again", epochs=1)
    other, _ = run(source, tmp_path / "other", epochs=1, seed=1)
    assert same(first, again)
    assert not same(first, other)


def test_labels_are_never_read(fmnist, tmp_path: Path):
    source = fmnist.train.first_k(300)
    unlabelled = ArraySource(source.images, None, source.class_names)
    assert same(run(source, tmp_path / "a", epochs=1)[0], run(unlabelled, tmp_path / "b", epochs=1)[0])


def test_a_damaged_checkpoint_is_refused_in_one_line(fmnist, tmp_path: Path):
    source = fmnist.train.first_k(300)
    run(source, tmp_path, epochs=1)
    weights = tmp_path / "epoch-1" / "method.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        run(source, tmp_path, epochs=2)


def test_a_loss_that_is_not_finite_stops_the_run(fmnist, tmp_path: Path):
    def broken(images, key):
        return randaugment(images, key) * torch.nan

    with pytest.raises(InputError, match="the loss is nan at step 1"):
        run(fmnist.train.first_k(300), tmp_path, views=broken)
    shutil.rmtree(tmp_path)


def test_an_unknown_method_names_those_that_are_known(fmnist, tmp_path: Path):
    with pytest.raises(InputError, match="simsiam"):
        run(fmnist.train.first_k(300), tmp_path, method="simsim")


def test_views_are_a_function_of_images_and_key(fmnist):
    images = fmnist.train.read(slice(8))
    before = torch.random.get_rng_state()
    first, again, other = (randaugment(images, ("key", k)) for k in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(images.numpy(), fmnist.train.read(slice(8)).numpy())

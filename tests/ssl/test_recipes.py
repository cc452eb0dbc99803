"""Presets on a few small images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabels.augment.recipes import RECIPES
from fewlabels.data.source import ArraySource
from fewlabels.ssl.pretrain import ComputeConfig, Pretraining
from fewlabels.ssl.recipes import PRESETS
from fewlabels.training.callbacks import Observer
from fewlabels.training.tuning import StepExecution

pytest.importorskip("timm", reason="pip install timm")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_does_a_training_step(name, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    preset = PRESETS[name]
    settings = replace(preset.settings, epochs=1, warmup_epochs=0, batch_size=2)
    compute = ComputeConfig(tune=False)
    source, observer = ArraySource(images, None, ()), Observer("")
    run = Pretraining(source, RECIPES[preset.views], settings, tmp_path, 0, observer, compute)
    run.prepare(StepExecution(torch.get_num_threads()))
    before = [p.detach().clone() for p in run.method.parameters()]
    assert run.train_step(0, run.feed(0, 1)).isfinite()
    unchanged = [torch.equal(old, new) for old, new in zip(before, run.method.parameters(), strict=True)]
    assert not all(unchanged)


def test_simsiam_resnet50_has_settings_of_the_paper():
    preset = PRESETS["simsiam-resnet50"].settings
    method = preset.of_method
    assert (method.projector, method.predictor_hidden, method.batch_size) == ((2048, 2048, 2048), 512, 512)
    assert method.optimizer.lr == pytest.approx(0.05 * 512 / 256)


def test_mocov3_freezes_patch_projection_of_vit():
    from fewlabels.ssl.pretrain import build_method

    method = build_method(PRESETS["mocov3-vit"].settings, 3, 0)
    frozen = {name for name, p in method.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"network.patch_embed.proj.weight", "network.patch_embed.proj.bias"}

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import adaptive_avg_pool2d

from fewlabels._internal.errors import InputError
from fewlabels.backbones.architectures import TimmBackbone, make_backbone


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("article", 28),
        ("resnet18", 20),
        ("resnet50", 20),
        ("timm/vit_tiny_patch16_224", 224),
        ("timm/mobilenetv3_small_050", 40),
        ("timm/convnext_atto", 40),
    ],
)
def test_make_backbone_takes_any_number_of_channels(name, size, channels):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    backbone = make_backbone(name, channels).eval()
    assert backbone.image_size in (None, size)
    with torch.no_grad():
        features = backbone(torch.rand(2, channels, size, size))
    assert features.shape == (2, backbone.num_features)


def test_resnet_stem_keeps_the_image_size():
    backbone = make_backbone("resnet18", 3)
    assert backbone.network.maxpool(backbone.network.conv1(torch.rand(1, 3, 32, 32))).shape == (1, 64, 32, 32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "Did you mean resnet18"),
        ("timm/vit_tiny_patch16_225", "timm/vit_tiny_patch16_224"),
    ],
)
def test_make_backbone_suggests_a_similar_name(name, message):
    with pytest.raises(InputError, match=message):
        make_backbone(name, 3)


def test_timm_backbone_loads_pretrained_weights_for_gray_images(tmp_path: Path):
    timm = pytest.importorskip("timm")
    whole = timm.create_model("mobilenetv3_small_050", num_classes=10)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    # timm expects the number of classes of its own weights.
    backbone = TimmBackbone("mobilenetv3_small_050", 1, tmp_path / "model.safetensors")
    assert torch.equal(backbone.network.conv_head.weight, whole.conv_head.weight)
    torch.testing.assert_close(backbone.network.conv_stem.weight, whole.conv_stem.weight.sum(1, keepdim=True))


def test_timm_backbone_refuses_weights_of_another_network(tmp_path: Path):
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("mobilenetv3_small_075").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors"):
        TimmBackbone("mobilenetv3_small_050", 3, tmp_path / "model.safetensors")


def test_timm_backbone_refuses_weights_with_unknown_names(tmp_path: Path):
    pytest.importorskip("timm")
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"weights of another architecture \(it has no conv_stem\.weight\)"):
        TimmBackbone("mobilenetv3_small_050", 3, tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", [28, 40])
def test_small_backbone_is_pooled_to_4x4(size):
    backbone = make_backbone("small", 1).eval()
    images = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    whole = backbone.network[:-2](images)
    assert whole.shape[2:] == ((4, 4) if size == 28 else (5, 5))
    torch.testing.assert_close(backbone(images), adaptive_avg_pool2d(whole, 4).flatten(1))

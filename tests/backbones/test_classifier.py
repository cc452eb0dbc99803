import numpy as np
import pytest
import torch

from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier, shifted_and_mirrored


def test_shifted_and_mirrored_by_hand():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    views = [view[0, 0].tolist() for view in shifted_and_mirrored(image)]
    assert views[0] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert views[2] == [[5, 6, 7, 7], [9, 10, 11, 11], [9, 10, 11, 11]]
    assert views[4] == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    for view, mirrored in zip(views[::2], views[1::2], strict=True):
        assert mirrored == [row[::-1] for row in view]


def test_shifted_and_mirrored_shifts_grow_with_the_image():
    views = list(shifted_and_mirrored(torch.arange(56.0).view(1, 1, 56, 1).expand(1, 1, 56, 84)))
    assert len(views) == SHIFTED
    assert views[2][0, 0, :, 0].tolist() == [*range(2, 56), 55, 55]


def test_classifier_averages_test_views_in_evaluation_mode_only(fmnist):
    images = fmnist.test.read([0, 1, 2]).float() / 255
    model = Classifier("article", ["a", "b"]).eval()
    one = [model(view) for view in shifted_and_mirrored(images)]
    model.test_views = SHIFTED
    torch.testing.assert_close(model(images), sum(one) / 6)
    model.test_views = MIRRORED
    torch.testing.assert_close(model(images), (model._of_one_view(images) + model._of_one_view(images.flip(-1))) / 2)
    model.train()
    assert model(images).shape == (3, 2)
    torch.testing.assert_close(model(images), model._of_one_view(images))


def test_set_head_gives_the_linear_head_these_weights():
    network = Classifier("article", ["a", "b"])
    head = np.random.default_rng(0).normal(size=(2, 2049))
    network.set_head(head)
    np.testing.assert_allclose(network.head.weight.detach(), head[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(network.head.bias.detach(), head[:, -1], rtol=1e-6)


def test_rescale_logits_scales_shifts_and_masks_absent_classes():
    network = Classifier("article", ["a", "b", "c"]).eval()
    images = torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        before = network(images)
        network.rescale_logits(0.5, np.array([1.0, -2.0, 0.0]), np.array([2]))
        after = network(images)
    torch.testing.assert_close(after[:, :2], 0.5 * before[:, :2] + torch.tensor([1.0, -2.0]))
    assert (after[:, 2] == -1e4).all()


@pytest.mark.parametrize("change", ["set_head", "rescale_logits"])
def test_head_with_a_hidden_layer_cannot_be_changed(change):
    network = Classifier("article", ["a", "b"], hidden=8)
    arguments = {"set_head": (np.zeros((2, 2049)),), "rescale_logits": (1.0, np.zeros(2), np.array([], int))}
    with pytest.raises(TypeError, match="hidden layer"):
        getattr(network, change)(*arguments[change])

import torch

from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier, shifted_and_mirrored


def test_six_views_by_hand():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    views = [view[0, 0].tolist() for view in shifted_and_mirrored(image)]
    assert views[0] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert views[2] == [[5, 6, 7, 7], [9, 10, 11, 11], [9, 10, 11, 11]]
    assert views[4] == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    for view, mirrored in zip(views[::2], views[1::2], strict=True):
        assert mirrored == [row[::-1] for row in view]


def test_shifts_grow_with_the_image():
    views = list(shifted_and_mirrored(torch.arange(56.0).view(1, 1, 56, 1).expand(1, 1, 56, 84)))
    assert len(views) == SHIFTED
    assert views[2][0, 0, :, 0].tolist() == [*range(2, 56), 55, 55]


def test_test_views_are_averaged_in_evaluation_alone(fmnist):
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

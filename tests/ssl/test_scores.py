import pytest
import torch

from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.backbones.inference import outputs
from fewlabels.ssl.metrics import rankme
from fewlabels.ssl.pretrain import PretrainSettings, build_method
from fewlabels.ssl.scores import ROTATION, SCORES, label_free_scores


@pytest.fixture(scope="module")
def method():
    return build_method(PretrainSettings("simclr", 1), 1, 0).train()


def test_every_score_is_finite_and_the_network_is_left_alone(method, fmnist):
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    found = label_free_scores(method, fmnist.train.first_k(200), RECIPES["gray-small"], 0)
    assert found.keys() == {*SCORES, ROTATION}
    assert all(torch.tensor(list(found.values())).isfinite())
    assert method.training
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_scores_are_those_of_the_features(method, fmnist):
    """Views that change nothing: all of an image's agree, and rank is that of the images' own features."""
    source = fmnist.train.first_k(200)
    names = ("RankMe, features", "retrieval, features", "alignment, features")
    found = label_free_scores(method, source, Recipe(), 0, names)
    assert list(found) == list(names)
    assert found["RankMe, features"] == pytest.approx(
        rankme(torch.from_numpy(outputs(method.backbone, source))), rel=1e-3
    )
    assert found["retrieval, features"] == 1
    assert found["alignment, features"] == 0


def test_features_that_know_the_turn_are_told_from_those_that_do_not(method, fmnist):
    class Corner(torch.nn.Module):
        """The mean of one half of the image: turning moves the light."""

        def __init__(self, halves: bool) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.halves = halves

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lines = [x.mean((1, 2)), x.mean((1, 3))] if self.halves else [x.flatten(1).sort(dim=1).values]
            return torch.cat(lines, dim=1) * self.scale

    source = fmnist.train.first_k(400)
    accuracy = []
    for halves in (True, False):
        changed = build_method(PretrainSettings("simclr", 1), 1, 0)
        changed.backbone, changed.projector = Corner(halves), torch.nn.Identity()
        accuracy.append(label_free_scores(changed, source, Recipe(), 0, (ROTATION,))[ROTATION])
    assert accuracy[0] > 0.5
    assert accuracy[1] == pytest.approx(0.25, abs=0.12)

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


def test_label_free_scores_are_finite_and_leave_network_unchanged(method, fmnist):
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    found = label_free_scores(method, fmnist.train.first_k(200), RECIPES["gray-small"], 0)
    assert found.keys() == {*SCORES, ROTATION}
    assert all(torch.tensor(list(found.values())).isfinite())
    assert method.training
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_scores_of_unchanged_views_equal_metrics_of_features(method, fmnist):
    """All views of an image are equal, so that the rank is that of the images' features."""
    source = fmnist.train.first_k(200)
    names = ("RankMe, features", "retrieval, features", "alignment, features")
    found = label_free_scores(method, source, Recipe(), 0, names)
    assert list(found) == list(names)
    assert found["RankMe, features"] == pytest.approx(
        rankme(torch.from_numpy(outputs(method.backbone, source))), rel=1e-3
    )
    assert found["retrieval, features"] == 1
    assert found["alignment, features"] == 0


def test_rotation_score_is_high_only_for_features_that_depend_on_rotation(method, fmnist):
    class Pixels(torch.nn.Module):
        """Row and column means, which depend on the rotation, or sorted pixels, which do not."""

        def __init__(self, means: bool) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.means = means

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lines = [x.mean((1, 2)), x.mean((1, 3))] if self.means else [x.flatten(1).sort(dim=1).values]
            return torch.cat(lines, dim=1) * self.scale

    source = fmnist.train.first_k(400)
    accuracy = []
    for means in (True, False):
        changed = build_method(PretrainSettings("simclr", 1), 1, 0)
        changed.backbone, changed.projector = Pixels(means), torch.nn.Identity()
        accuracy.append(label_free_scores(changed, source, Recipe(), 0, (ROTATION,))[ROTATION])
    assert accuracy[0] > 0.5
    assert accuracy[1] == pytest.approx(0.25, abs=0.12)

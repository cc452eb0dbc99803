"""One step of each method changes the weights as lightly's loss does, with the same network and views."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.pretrain import build_method
from fewlabels.ssl.settings import PretrainSettings

losses = pytest.importorskip("lightly.loss", reason="reference implementation: pip install lightly")


def two_views(n: int = 16):
    return torch.rand(2, n, 1, 28, 28, generator=torch.Generator().manual_seed(0)).unbind()


def projections(method: Method, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    return method.projector(method.backbone(x0)), method.projector(method.backbone(x1))


def simclr(method, x0, x1) -> Tensor:
    return losses.NTXentLoss(temperature=0.5)(*projections(method, x0, x1))


def simsiam(method, x0, x1) -> Tensor:
    z0, z1 = projections(method, x0, x1)
    p0, p1 = method.predictor(z0), method.predictor(z1)
    criterion = losses.NegativeCosineSimilarity()
    return 0.5 * (criterion(p0, z1.detach()) + criterion(p1, z0.detach()))


def byol(method, x0, x1) -> Tensor:
    z0, z1 = projections(method, x0, x1)
    with torch.no_grad():
        t0, t1 = method.target.copy(x0), method.target.copy(x1)
    criterion = losses.NegativeCosineSimilarity()
    return 0.5 * (criterion(method.predictor(z0), t1) + criterion(method.predictor(z1), t0))


def mocov2(method, x0, x1) -> Tensor:
    criterion = losses.NTXentLoss(temperature=0.2, memory_bank_size=tuple(method.queue.shape))
    criterion.memory_bank.bank = method.queue.clone()
    with torch.no_grad():
        keys = method.keys.copy(x1)
    return criterion(method.projector(method.backbone(x0)), keys)


def mocov3(method, x0, x1) -> Tensor:
    """Written from algorithm 1 of the paper, since lightly does not have this loss."""
    z0, z1 = projections(method, x0, x1)
    with torch.no_grad():
        k0, k1 = method.keys.copy(x0), method.keys.copy(x1)

    def ctr(q: Tensor, k: Tensor) -> Tensor:
        q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
        logits = torch.einsum("nc,mc->nm", q, k) / 0.2
        return -logits.log_softmax(dim=1).diagonal().mean() * 0.4

    return ctr(method.predictor(z0), k1) + ctr(method.predictor(z1), k0)


def vicreg(method, x0, x1) -> Tensor:
    return losses.VICRegLoss()(*projections(method, x0, x1))


def barlow_twins(method, x0, x1) -> Tensor:
    return losses.BarlowTwinsLoss(lambda_param=5e-3)(*projections(method, x0, x1))


REFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "simclr": simclr,
    "simsiam": simsiam,
    "byol": byol,
    "mocov2": mocov2,
    "mocov3": mocov3,
    "vicreg": vicreg,
    "barlow-twins": barlow_twins,
}


def weight_change(method: nn.Module, loss: Tensor) -> Tensor:
    """Change of the weights in one step of gradient descent."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten() for p in parameters])
    loss.backward()
    torch.optim.SGD(parameters, lr=1.0).step()
    return torch.cat([p.detach().flatten() for p in parameters]) - before


@pytest.mark.parametrize("name", METHODS)
def test_step_equals_step_of_lightly_loss(name):
    ours = build_method(PretrainSettings(name, epochs=1), channels=1, seed=0).double()
    theirs = copy.deepcopy(ours)
    x0, x1 = (x.double() for x in two_views())
    one, other = weight_change(ours, ours(x0, x1).loss), weight_change(theirs, REFERENCE_LOSSES[name](theirs, x0, x1))
    assert one.norm() > 0
    assert torch.cosine_similarity(one, other, dim=0).item() == pytest.approx(1, abs=1e-5)
    if name != "byol":  # lightly's loss is a quarter of the paper's, with an offset
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)

"""What two processes compute together is what one computes alone, gradients included."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fewlabels.ssl.methods.barlow_twins import redundancy_loss
from fewlabels.ssl.methods.moco import batch_loss
from fewlabels.ssl.methods.simclr import nt_xent
from fewlabels.ssl.methods.vicreg import covariance, variance
from fewlabels.training.distributed import gathered, synchronised

ROWS = 6
LOSSES = {
    "simclr": nt_xent,
    "mocov3": lambda q, k: batch_loss(q, k, 0.2),
    "vicreg": lambda z0, z1: covariance(gathered(z0)) + variance(gathered(z0) / 4) + covariance(gathered(z1)),
    "barlow-twins": lambda z0, z1: redundancy_loss(gathered(z0), gathered(z1), 0.1),
}
"""Those that look at the whole batch."""


def parts(seed: int, *shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network() -> nn.Sequential:
    norms = nn.Sequential(nn.BatchNorm2d(3, dtype=torch.float64), nn.Flatten(), nn.BatchNorm1d(12, dtype=torch.float64))
    with torch.no_grad():
        for parameter in norms.parameters():
            parameter.copy_(torch.linspace(0.5, 1.5, len(parameter)))
    return norms


def one_of_two(rank: int, store: str, alone: dict[str, Tensor]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    x = parts(0, 3, 2, 2)[mine].requires_grad_()
    norms = synchronised(network(), torch.device("cpu"))
    y = norms(x)
    (y * parts(1, 12)[mine]).sum().backward()
    torch.testing.assert_close(y, alone["y"][mine])
    torch.testing.assert_close(x.grad, alone["x.grad"][mine])
    for name, value in norms.state_dict().items():
        torch.testing.assert_close(value, alone[name])
    gradient = norms[0].weight.grad.clone()
    dist.all_reduce(gradient)
    torch.testing.assert_close(gradient, alone["weight.grad"])
    frozen = synchronised(network().requires_grad_(False), torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())  # a slow copy's

    for name, objective in LOSSES.items():
        z = parts(2, 4)[mine].requires_grad_()
        loss = objective(z, parts(3, 4)[mine])
        loss.backward()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        torch.testing.assert_close(whole / 2, alone[f"{name} loss"])
        torch.testing.assert_close(z.grad / 2, alone[f"{name} gradient"][mine])
    torch.testing.assert_close(gathered(parts(2, 4)[mine]), parts(2, 4))
    dist.destroy_process_group()


def test_two_processes_give_the_norms_losses_and_gradients_of_one(tmp_path):
    x, norms = parts(0, 3, 2, 2).requires_grad_(), network()
    y = norms(x)
    (y * parts(1, 12)).sum().backward()
    alone = {"y": y, "x.grad": x.grad, "weight.grad": norms[0].weight.grad}
    for name, objective in LOSSES.items():
        z = parts(2, 4).requires_grad_()
        alone[f"{name} loss"] = objective(z, parts(3, 4))
        alone[f"{name} loss"].backward()
        alone[f"{name} gradient"] = z.grad
    alone = {name: value.detach() for name, value in {**alone, **norms.state_dict()}.items()}
    mp.spawn(one_of_two, (str(tmp_path / "store"), alone), nprocs=2)


def test_alone_nothing_is_replaced():
    norms = network()
    assert synchronised(norms, torch.device("cpu")) is norms
    assert type(norms[0]) is nn.BatchNorm2d

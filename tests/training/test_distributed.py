"""Two processes compute the same results and gradients as one."""

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
"""Losses that depend on the whole batch."""


def random_rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network() -> nn.Sequential:
    norms = nn.Sequential(nn.BatchNorm2d(3, dtype=torch.float64), nn.Flatten(), nn.BatchNorm1d(12, dtype=torch.float64))
    with torch.no_grad():
        for parameter in norms.parameters():
            parameter.copy_(torch.linspace(0.5, 1.5, len(parameter)))
    return norms


def check_one_of_two_processes(rank: int, store: str, expected: dict[str, Tensor]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    own_rows = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    x = random_rows(0, 3, 2, 2)[own_rows].requires_grad_()
    norms = synchronised(network(), torch.device("cpu"))
    y = norms(x)
    (y * random_rows(1, 12)[own_rows]).sum().backward()
    torch.testing.assert_close(y, expected["y"][own_rows])
    torch.testing.assert_close(x.grad, expected["x.grad"][own_rows])
    for name, value in norms.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    gradient = norms[0].weight.grad.clone()
    dist.all_reduce(gradient)
    torch.testing.assert_close(gradient, expected["weight.grad"])
    frozen = synchronised(network().requires_grad_(False), torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())  # as in a momentum encoder

    for name, objective in LOSSES.items():
        z = random_rows(2, 4)[own_rows].requires_grad_()
        loss = objective(z, random_rows(3, 4)[own_rows])
        loss.backward()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        torch.testing.assert_close(whole / 2, expected[f"{name} loss"])
        torch.testing.assert_close(z.grad / 2, expected[f"{name} gradient"][own_rows])
    torch.testing.assert_close(gathered(random_rows(2, 4)[own_rows]), random_rows(2, 4))
    dist.destroy_process_group()


def test_two_processes_equal_one_in_norms_losses_and_gradients(tmp_path):
    x, norms = random_rows(0, 3, 2, 2).requires_grad_(), network()
    y = norms(x)
    (y * random_rows(1, 12)).sum().backward()
    expected = {"y": y, "x.grad": x.grad, "weight.grad": norms[0].weight.grad}
    for name, objective in LOSSES.items():
        z = random_rows(2, 4).requires_grad_()
        expected[f"{name} loss"] = objective(z, random_rows(3, 4))
        expected[f"{name} loss"].backward()
        expected[f"{name} gradient"] = z.grad
    expected = {name: value.detach() for name, value in {**expected, **norms.state_dict()}.items()}
    mp.spawn(check_one_of_two_processes, (str(tmp_path / "store"), expected), nprocs=2)


def test_synchronised_leaves_module_unchanged_in_one_process():
    norms = network()
    assert synchronised(norms, torch.device("cpu")) is norms
    assert type(norms[0]) is nn.BatchNorm2d

import numpy as np
import torch

from fewlabels.augment.cutmix import cutmix


def test_cutmix_pastes_a_box_of_the_partner_and_returns_its_area():
    """Every pixel of image n has the value n, so that it shows which image it is from."""
    images = torch.arange(64.0)[:, None, None, None].expand(64, 2, 20, 10)
    mixed, partners, own_fraction = cutmix(images, (0, 1))
    assert sorted(partners.tolist()) == list(range(64))
    for n, (image, partner) in enumerate(zip(mixed[:, 0], partners, strict=True)):
        own, other = image == n, image == partner
        assert (own | other).all()
        if partner != n:
            rows, columns = other.any(dim=1).sum(), other.any(dim=0).sum()
            assert other.sum() == rows * columns  # a box
            assert abs(rows / 20 - columns / 10) <= 0.08  # with the image's aspect ratio
            assert own_fraction[n].item() == np.float32(own.sum() / 200)
    torch.testing.assert_close(mixed[:, 0], mixed[:, 1])
    assert own_fraction.mean().item() == torch.clamp(own_fraction.mean(), 0.4, 0.6).item()
    assert own_fraction.min() < 0.1
    assert own_fraction.max() > 0.9


def test_cutmix_depends_on_the_key():
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    first, again, other = (cutmix(images, (0, step))[0] for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

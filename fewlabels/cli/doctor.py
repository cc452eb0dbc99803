"""The command ``doctor``."""

from rich.console import Console
from rich.table import Table

from fewlabels.cli.options import DataFolder


def doctor(
    data: DataFolder = None,
) -> None:
    """Print versions, threads, devices and data folders of this machine.

    Example: `fewlabels doctor`
    """
    import torch

    from fewlabels._internal.environment import machine, versions
    from fewlabels.data.dataset import decoded_folder
    from fewlabels.data.fashion_mnist import locate
    from fewlabels.training.precision import available_devices

    found = locate(data)
    hardware = machine()
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    table.add_row("processor", f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB")
    table.add_row("torch threads", str(torch.get_num_threads()))
    table.add_row("devices", ", ".join(available_devices()))
    table.add_row("fashion-mnist", str(found) if found else "not found; the first command that needs it downloads it")
    cache = decoded_folder()
    used = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 2**20
    table.add_row("decoded images", f"{cache}: {used:,.0f} MiB; you may delete it, images are decoded again if needed")
    Console(markup=False).print(table)

"""What this machine has."""

from rich.console import Console
from rich.table import Table

from fewlabels.cli.options import DataFolder, devices


def doctor(
    data: DataFolder = None,
) -> None:
    """Say what this machine has: versions, threads, devices, where the data is.

    Example: `fewlabels doctor`
    """
    import torch

    from fewlabels._internal.environment import machine, versions
    from fewlabels.data.dataset import decoded_folder
    from fewlabels.data.fashion_mnist import locate

    found = locate(data)
    here = machine()
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    table.add_row("processor", f"{here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB")
    table.add_row("torch threads", str(torch.get_num_threads()))
    table.add_row("devices", ", ".join(devices()))
    table.add_row("fashion-mnist", str(found) if found else "not here yet; the first command that needs it fetches it")
    cache = decoded_folder()
    used = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 2**20
    table.add_row("decoded images", f"{cache}: {used:,.0f} MiB; may be deleted, they are decoded again when needed")
    Console(markup=False).print(table)

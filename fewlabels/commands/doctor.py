"""What this machine has."""

from rich.console import Console
from rich.table import Table

from fewlabels.commands.options import DataFolder, devices


def doctor(
    data: DataFolder = None,
) -> None:
    """Say what this machine has: versions, threads, devices, where the data is.

    Example: `fewlabels doctor`
    """
    import torch

    from fewlabels.data.fashion_mnist import locate
    from fewlabels.records import machine, versions

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
    Console().print(table)

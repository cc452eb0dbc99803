"""Finished stages of a fit on disk, found again by what they were made from."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels._internal.environment import code_digest
from fewlabels._internal.files import write_bytes, write_json
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_classifier, save_classifier
from fewlabels.data.source import digest
from fewlabels.training.checkpoints import discard_all
from fewlabels.training.run_folder import refuse_others, refusing_damage


class StageCache:
    """A folder of finished stages. A stage's file is named by a digest of its inputs and of the code that made it.

    Args:
        folder: where.
        inputs: what every stage depends on, such as images, labels and seed.
        code: a digest of the source; None: of the code that runs.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], code: str | None = None) -> None:
        self.folder, self.inputs = folder, dict(inputs)
        self.code = code_digest("fit") if code is None else code
        self._clock, self._since = folder / "seconds.json", time.perf_counter()

    def refuse_other_fit(self, config: Mapping[str, Any]) -> None:
        """Refuse a folder that holds a fit with another configuration.

        Raises:
            InputError: naming what differs.
        """
        file = self.folder / "config.json"
        if not file.is_file():
            return
        with refusing_damage(file):
            before = dict(json.loads(file.read_text()))
        refuse_others(f"{self.folder.parent}: holds a fit", before, dict(config))

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Note what decides the fit, for :meth:`refuse_other_fit`."""
        write_json(self.folder / "config.json", config)

    def path(self, name: str, key: Mapping[str, Any], suffix: str) -> Path:
        """The file of a stage with these inputs."""
        content = json.dumps({"code": self.code, **self.inputs, **key}, sort_keys=True)
        return self.folder / f"{name}-{digest(content.encode())}{suffix}"

    def get_or_compute(self, name: str, key: Mapping[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array, from its file or computed and written."""
        return cached_array(self.path(name, key, ".npy"), compute)

    def get_or_build(self, name: str, key: Mapping[str, Any], build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """JSON, from its file or built and written."""
        file = self.path(name, key, ".json")
        if not file.is_file():
            write_json(file, build())
        with refusing_damage(file):  # read back, so that every start has the same numbers
            return dict(json.loads(file.read_text()))

    def get_or_train(
        self, name: str, key: Mapping[str, Any], train: Callable[[Path], tuple[Classifier, str]], device: torch.device
    ) -> tuple[Classifier, str]:
        """A network in evaluation mode and its training's warning, from their files or trained and written.

        Args:
            name: of the stage.
            key: its inputs.
            train: trains it, with checkpoints in the folder that it is given; returns it with a warning, or "".
            device: where the network is wanted.
        """
        weights, checkpoints = self.path(name, key, ".safetensors"), self.path(name, key, "-checkpoints")
        if not weights.is_file():
            try:
                network, warning = train(checkpoints)
            finally:
                self.save_seconds()
            write_json(weights.with_suffix(".json"), {"warning": warning})
            save_classifier(network, weights)
            discard_all(checkpoints)
        network = load_classifier(weights).to(device)  # read back, so that every start has the same digits
        about = weights.with_suffix(".json")
        with refusing_damage(about):
            return network.to(memory_format=torch.channels_last), str(json.loads(about.read_text())["warning"])

    def seconds(self) -> float:
        """Seconds that all starts of the fit have taken together, until now."""
        return self._seconds_before() + time.perf_counter() - self._since

    def save_seconds(self) -> None:
        """Write down the time that has passed."""
        seconds = self.seconds()
        write_json(self._clock, round(seconds, 1))
        self._since = time.perf_counter()

    def _seconds_before(self) -> float:
        if not self._clock.is_file():
            return 0.0
        with refusing_damage(self._clock):
            return float(json.loads(self._clock.read_text()))


def cached_array(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a ``.npy`` file; computed and written whole if the file is not there."""
    if file.is_file():
        with refusing_damage(file):
            array: np.ndarray = np.load(file, allow_pickle=False)
            return array
    array = compute()
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(file, buffer.getvalue())
    return array

"""What a fit is made of: each training and prediction is done once, and read back by the next start."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels._internal.files import write_bytes, write_json
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_classifier, save_classifier
from fewlabels.training.callbacks import Observer
from fewlabels.training.checkpoints import discard_all
from fewlabels.training.run_folder import refuse_others, refusing_damage
from fewlabels.training.trainer import Loop


class Stages:
    """A folder of what is done.

    Args:
        folder: of the fit; the stages lie in ``folder/stages``.
        decided: all that decides the result.
        observer: makes one for each training, by name.
        device: where networks are wanted.
        paces: as :mod:`fewlabels.fit.paces` has them; None: measured as they come, so that a second fit may have other
            steps.

    Raises:
        InputError: if the folder holds a fit with other settings.
    """

    def __init__(
        self,
        folder: Path,
        decided: dict[str, Any],
        observer: Callable[[str], Observer],
        device: torch.device,
        paces: Mapping[str, float] | None = None,
    ) -> None:
        self.folder, self.observer, self.device = folder / "stages", observer, device
        self.planned = paces is not None
        """Whether steps follow from seconds alone, whatever the clock says."""
        self._paces: dict[str, float] = dict(paces or {})
        """As given, or the seconds a step of each arm as last seen."""
        self._clock, self._since = self.folder / "seconds.json", time.perf_counter()
        file = self.folder / "decided.json"
        if file.is_file():
            with refusing_damage(file):
                before = dict(json.loads(file.read_text()))
            refuse_others(f"{folder}: holds a fit", before, decided)
        else:
            write_json(file, decided)

    def seconds(self) -> float:
        """That all starts have taken, up to the last :meth:`tick`."""
        if not self._clock.is_file():
            return 0.0
        with refusing_damage(self._clock):
            return float(json.loads(self._clock.read_text()))

    def tick(self) -> None:
        """Note the time that has passed."""
        now = time.perf_counter()
        write_json(self._clock, round(self.seconds() + now - self._since, 1))
        self._since = now

    def network(self, arm: str, part: str, loop: Callable[[], Loop], seconds: float) -> Classifier:
        """What an arm's training on a part of the labels gives, in so many seconds and at most the loop's own steps."""
        name = f"{arm}-{part}"
        weights, plan, checkpoints = (self.folder / f"{name}{end}" for end in (".safetensors", ".json", "-checkpoints"))
        if weights.is_file():
            return self._read(weights)
        until = time.perf_counter() + seconds
        training = loop()
        if plan.is_file():
            with refusing_damage(plan):
                training.steps = int(json.loads(plan.read_text())["steps"])
        else:
            training.steps = min(training.steps, self._steps(arm, training, seconds, until))
            self._note(plan, training)
        observer = self.observer(name)
        try:
            network = training.run(observer, checkpoints)
        finally:
            self._note(plan, training)
            self.tick()
        if not isinstance(network, Classifier):
            raise TypeError("a stage's network is a classifier")
        if not self.planned:
            self._paces[arm] = observer.seconds / training.steps
        save_classifier(network, weights)
        discard_all(checkpoints)
        return self._read(weights)  # as the next start has it, to the last digit

    def _read(self, weights: Path) -> Classifier:
        network = load_classifier(weights).to(self.device)
        return network.to(memory_format=torch.channels_last)  # asking takes up to half as long

    def array(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Numbers that take a while to compute."""
        return kept_array(self.folder / f"{name}.npy", make)

    def has(self, name: str) -> bool:
        """Whether these numbers are there."""
        return (self.folder / f"{name}.npy").is_file()

    def pace(self, name: str, tried: Callable[[], float]) -> float:
        """Of what is no training, as given; else by a trial."""
        return self._paces[name] if self.planned else tried()

    def steps_in(self, arm: str, loop: Callable[[], Loop], seconds: float) -> int:
        """How many steps of an arm's training so much time is enough for."""
        return self._steps(arm, loop(), seconds, time.perf_counter() + seconds)

    def _steps(self, arm: str, training: Loop, seconds: float, until: float) -> int:
        """How many there is time for, at least one."""
        if self.planned:
            return max(1, int(seconds / self._paces[arm]))
        if arm not in self._paces:
            self._paces[arm] = training.seconds_a_step()
        training.until = until  # other work may slow the machine down
        return max(1, int((until - time.perf_counter()) / self._paces[arm]))

    def warnings(self) -> dict[str, str]:
        """Of trainings that were finished by this start or an earlier one, by their names."""
        found = {}
        for weights in sorted(self.folder.glob("*.safetensors")):
            plan = weights.with_suffix(".json")
            with refusing_damage(plan):
                found[weights.stem] = json.loads(plan.read_text()).get("warning", "")
        return {name: warning for name, warning in found.items() if warning}

    @staticmethod
    def _note(plan: Path, training: Loop) -> None:
        write_json(plan, {"steps": training.steps, "warning": training.objective.warning()})


def kept_array(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What the ``.npy`` file holds; if it is not there it is made and written whole."""
    if file.is_file():
        with refusing_damage(file):
            array: np.ndarray = np.load(file, allow_pickle=False)
            return array
    array = make()
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(file, buffer.getvalue())
    return array

"""The run folder of an attack on prompts: made, written step by step, and read.

    RUN/
      evidence/                  written once, never changed
        prompts.json             the request, the tokens, versions, hashes
        prompts/00000/           one folder a prompt
          step-00000.json        the suffix before the first step; then one file a step
          answers.json           what the model answers
      report.html report.json    derived; can be deleted and made again

Each file of the evidence is written at once or not at all, has the seal of its content, and bears
the run's identity. A run is complete when each prompt has all its steps and its answers.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flatguard.errors import RunFolderError
from flatguard.prompt_request import PromptRequest
from flatguard.recording.prompt_recorder import to_trajectory
from flatguard.runs.json_files import read_sealed, reading, write_sealed
from flatguard.runs.layout import EVIDENCE, PROMPTS
from flatguard.runs.prompt_facts import PROMPT_FORMAT, AnswerFacts, PromptManifest, StepFacts
from flatguard.runs.publishing import writing
from flatguard.runs.storage import Folder
from flatguard.runs.untrusted import is_plain_file, is_plain_folder, read_text
from flatguard.runs.writing import make_folder

if TYPE_CHECKING:
    import pandas as pd

_ANSWERS = "answers.json"
_STEP = re.compile(r"step-([0-9]{5,9})\.json")

Facts = TypeVar("Facts", StepFacts, AnswerFacts)


class PromptRun:
    """A run folder of an attack on prompts.

    Attributes:
        path: the folder.
        manifest: the request, with versions and hashes.
    """

    def __init__(self, path: Path, manifest: PromptManifest):
        self.path, self.manifest = path, manifest

    @property
    def request(self) -> PromptRequest:
        """The request."""
        return self.manifest.request

    @cached_property
    def steps(self) -> tuple[tuple[StepFacts, ...], ...]:
        """For each prompt, its steps from 0 on, without a gap.

        Raises:
            RunFolderError: a step is damaged or missing.
        """
        return tuple(self._steps_of(number) for number in range(len(self.manifest.plans)))

    @cached_property
    def answers(self) -> tuple[AnswerFacts | None, ...]:
        """For each prompt, what the model answers; None where it was not asked yet."""
        return tuple(self._answers_of(number) for number in range(len(self.manifest.plans)))

    @cached_property
    def trajectory(self) -> pd.DataFrame:
        """A row per prompt and step: `prompt`, and the columns of `PromptRecorder.trajectory`."""
        import pandas as pd

        tables = [to_trajectory([one.accepted for one in steps]) for steps in self.steps]
        for number, table in enumerate(tables):
            table.insert(0, "prompt", number)
        return pd.concat(tables, ignore_index=True)

    @property
    def complete(self) -> bool:
        """Whether each prompt has all its steps and its answers."""
        wanted = self.request.steps + 1
        return all(len(steps) == wanted for steps in self.steps) and None not in self.answers

    def sweep(self) -> None:
        """Remove the half-written files of a process that was killed."""
        for number in range(len(self.manifest.plans)):
            for file in self._folder(number).glob(".*.json.*"):
                file.unlink(missing_ok=True)

    def write_step(self, facts: StepFacts) -> None:
        """Add one step to the evidence."""
        self._write(facts, _step_name(facts.accepted.step))

    def write_answers(self, facts: AnswerFacts) -> None:
        """Add a prompt's answers to the evidence."""
        self._write(facts, _ANSWERS)

    def _write(self, facts: StepFacts | AnswerFacts, name: str) -> None:
        folder = self._folder(facts.prompt)
        with writing(str(folder / name)):
            folder.mkdir(parents=True, exist_ok=True)
            write_sealed(folder / name, facts)

    def _folder(self, prompt: int) -> Path:
        return self.path / EVIDENCE / "prompts" / f"{prompt:05d}"

    def _steps_of(self, prompt: int) -> tuple[StepFacts, ...]:
        folder = self._folder(prompt)
        if not is_plain_folder(folder):
            return ()
        names = [name for file in folder.iterdir() if _STEP.fullmatch(name := file.name)]
        found = []
        for step in range(len(names)):
            facts = self._read(StepFacts, folder / _step_name(step), prompt)
            if facts.accepted.step != step or len(facts.accepted.losses) != len(
                self.manifest.plans[prompt].target
            ):
                raise RunFolderError(f"{folder / _step_name(step)} belongs to another step")
            found.append(facts)
        return tuple(found)

    def _answers_of(self, prompt: int) -> AnswerFacts | None:
        folder = self._folder(prompt)
        if not is_plain_folder(folder) or not is_plain_file(folder / _ANSWERS):
            return None
        facts = self._read(AnswerFacts, folder / _ANSWERS, prompt)
        if facts.step >= len(self.steps[prompt]):
            raise RunFolderError(f"{folder / _ANSWERS} is about a step that the run does not have")
        return facts

    def _read(self, kind: type[Facts], file: Path, prompt: int) -> Facts:
        facts = read_sealed(kind, file)
        if facts.run != self.manifest.identity or facts.prompt != prompt:
            raise RunFolderError(f"{file} belongs to another run or prompt")
        return facts


def create_prompt_run(path: Path, manifest: PromptManifest) -> PromptRun:
    """Make the run folder together with its manifest; from here on the request is fixed.

    Raises:
        RunFolderError: it exists already, or cannot be written.
    """
    make_folder(Folder(path), lambda evidence: write_sealed(evidence / PROMPTS, manifest))
    return PromptRun(path, manifest)


def is_prompt_run(location: str | Path) -> bool:
    """Whether a folder is a run on prompts and not on images."""
    return "://" not in str(location) and (Path(location) / EVIDENCE / PROMPTS).exists()


def load_prompt_run(path: str | Path) -> PromptRun:
    """Open the run folder of an attack on prompts.

    Raises:
        RunFolderError: this is no such folder, it is damaged, or it has another format.
    """
    path = Path(path)
    file = path / EVIDENCE / PROMPTS
    if not (is_plain_folder(path) and is_plain_folder(file.parent) and is_plain_file(file)):
        raise RunFolderError(f"{path} is no run on prompts: it has no {EVIDENCE}/{PROMPTS}")
    with reading(file):
        version = json.loads(read_text(file)).get("format_version")
    if version != PROMPT_FORMAT:
        raise RunFolderError(
            f"{path} has format {version}, this flatguard reads format {PROMPT_FORMAT} of runs on "
            "prompts; upgrade flatguard, or evaluate again"
        )
    return PromptRun(path, read_sealed(PromptManifest, file))


def _step_name(step: int) -> str:
    return f"step-{step:05d}.json"

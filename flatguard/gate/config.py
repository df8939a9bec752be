"""A config: the options of `flatguard evaluate` in a YAML file, and thresholds.

Published protocols come with the package and are found by name; a path names any other file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from flatguard.attacks.attack import parse_value
from flatguard.checks.error_rates import MOST_IMAGES, images_needed
from flatguard.checks.registry import check_names
from flatguard.errors import UsageError, did_you_mean, nearest
from flatguard.gate import positions
from flatguard.option_values import Share
from flatguard.request import TOLERANCE, EvaluationRequest, reason_of

INCONCLUSIVE, DETECTION = "inconclusive", "detection"
ALLOWED = (INCONCLUSIVE, DETECTION, *check_names())
SUFFIXES = (".yaml", ".yml")
OTHER_NAMES = {"tolerance": "max_overestimate", "data": "dataset", "epsilon": "eps"}
ABOUT = ("title", "source", "gate")
"""Keys that say something about an evaluation and are no part of it."""


def _is_allowed(name: str) -> str:
    if name not in ALLOWED:
        raise ValueError(
            f"expected {INCONCLUSIVE}, {DETECTION} or a check's name"
            f"{did_you_mean(name, ALLOWED, 1)}; checks: {', '.join(check_names())}"
        )
    return name


def _parsed(values: Any) -> Any:
    """`alpha: 2/255` is a word to YAML and a number to an attack."""
    if not isinstance(values, Mapping):
        return values
    return {
        name: parse_value(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def _is_max_overestimate(value: Any) -> Any:
    """Refuse `tolerance`: a config has it as `gate.max_overestimate`, and nowhere else."""
    raise PydanticCustomError("extra_forbidden", "there is no such key")


Allowed = Annotated[
    str,
    AfterValidator(_is_allowed),
    WithJsonSchema({"type": "string", "enum": list(ALLOWED)}),
]


class Thresholds(BaseModel):
    """What a release must reach.

    Attributes:
        min_robust_accuracy: the lower end of the corrected robust accuracy's 95% interval must
            reach it.
        max_overestimate: by how much the reported number may be too high, as a share of all
            samples; it is the verdict's tolerance.
        max_wrong_pass: the chance that is accepted to pass a model whose true overestimate is
            above `max_overestimate`; too few images for it shut the gate.
        no_masking: the verdict must not be `masked`.
        min_detected: of the successful adversarial examples, the share that the detector must
            flag; the lower end of its 95% interval must reach it.
        max_false_positives: of the clean images, the share that the detector may flag; the upper
            end of its 95% interval must not exceed it.
        allow: `inconclusive`; `detection`, where no attack succeeded, so nothing can be detected;
            and checks that need not have run, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_robust_accuracy: Share | None = None
    max_overestimate: Share = TOLERANCE
    max_wrong_pass: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    no_masking: bool = True
    min_detected: Share | None = None
    max_false_positives: Share | None = None
    allow: tuple[Allowed, ...] = ()


def _optional(name: str) -> Any:
    return Field(None, description=EvaluationRequest.model_fields[name].description)


class Config(EvaluationRequest):
    """What is evaluated, how, and what it must reach; None means "by default".

    Attributes:
        title: a line for a person.
        source: where the protocol was published.
        model: may be left to whoever uses the config, as `attack`.
        gate: thresholds; without them nothing but the verdict counts.
    """

    title: str | None = None
    source: str | tuple[str, ...] = ()
    model: str | None = _optional("model")  # type: ignore[assignment]
    attack: str | None = _optional("attack")  # type: ignore[assignment]
    attack_args: Annotated[
        dict[str, Any],
        Field(description="Arguments of the attack by name."),
        BeforeValidator(_parsed),
    ] = Field(default_factory=dict)
    tolerance: Annotated[
        SkipJsonSchema[Share], Field(exclude=True), BeforeValidator(_is_max_overestimate)
    ] = TOLERANCE
    gate: Thresholds | None = None

    def given(self) -> dict[str, Any]:
        """What was written, by key; nothing that is there by default."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    def arguments(self) -> dict[str, Any]:
        """What was written, as fields of the request."""
        found = {name: value for name, value in self.given().items() if name not in ABOUT}
        if self.gate is not None:
            found["tolerance"] = self.gate.max_overestimate
        return found

    def check_detector(self) -> None:
        """Refuse thresholds for a detector where none is named.

        Raises:
            UsageError: it names the first of them.
        """
        if self.gate is None or self.detector is not None:
            return
        for name in ("min_detected", "max_false_positives"):
            if getattr(self.gate, name) is not None:
                raise UsageError(
                    f"gate.{name} needs a detector: add a key `detector` with the file that "
                    "flatguard detect fit wrote for this model"
                )

    def check_images(self, n: int) -> None:
        """Refuse a number of images on which not even a faultless number could pass.

        Raises:
            UsageError: it says how many are needed.
        """
        if self.gate is None or self.gate.max_wrong_pass is None:
            return
        most, tolerance = self.gate.max_wrong_pass, self.gate.max_overestimate
        needed = images_needed(0.0, tolerance, most)
        if needed is None:
            raise UsageError(
                f"gate.max_wrong_pass: max_overestimate is {tolerance:g}, and a chance of {most:g} "
                f"would need more than {MOST_IMAGES:,} images; accept a larger overestimate"
            )
        if n < needed:
            raise UsageError(
                f"gate.max_wrong_pass: {n:,} images cannot keep the chance of a wrong pass at "
                f"{most:g} with max_overestimate {tolerance:g}; at least {needed:,} are needed: "
                f"n_examples: {needed}"
            )

    def with_(self, **changes: Any) -> Config:
        """The same config but for these keys; those of `gate` stand beside the others.

        Raises:
            UsageError: a key is unknown or its value out of range.
        """
        inside = {name: changes.pop(name) for name in Thresholds.model_fields if name in changes}
        merged = {**self.given(), **changes}
        if inside:
            written = self.gate.model_dump(exclude_unset=True) if self.gate else {}
            merged["gate"] = {**written, **inside}
        return config_of(merged)


def config_of(values: Mapping[str, Any], where: positions.Positions | None = None) -> Config:
    """A config of these values, or one line that names the key, its file and its line.

    Raises:
        UsageError: a key is unknown or its value out of range.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path, message = first["loc"], _message(first)
        if where is None:
            raise UsageError(f"{'.'.join(str(part) for part in path)}: {message}") from error
        raise where.error(path, message) from error


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        inside = error["loc"][0] == "gate"
        known = Thresholds.model_fields if inside else Config.model_fields
        unknown = str(error["loc"][-1])
        others = "" if inside else _in_gate(unknown)
        return f"there is no such key{others or _nearest(unknown, known, inside)}"
    return reason_of(error)


def _nearest(unknown: str, known: Iterable[str], inside: bool) -> str:
    """A key's own name for what the command line calls otherwise; else what looks like it."""
    names = {name: name for name in known}
    if not inside:
        names |= {name: f"gate.{name}" for name in Thresholds.model_fields}
    meant = OTHER_NAMES.get(unknown, "")
    found = [meant] if meant in names else nearest(unknown, names, 1)
    return f"; nearest: {names[found[0]]}" if found else ""


def _in_gate(name: str) -> str:
    return f"; it belongs under gate: gate.{name}" if name in Thresholds.model_fields else ""


def load_config(name: str | Path) -> Config:
    """A config by its path, or a published protocol by its name.

    Raises:
        UsageError: there is none, or it is wrong: its file, line and key.
    """
    found = positions.read(find_config(name))
    return config_of(found.values, found)


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(f"no file {path}; flatguard configs lists those that have a name")
        return path
    known = published()
    if str(name) not in known:
        raise UsageError(
            f"no config {str(name)!r}{did_you_mean(str(name), known)}; expected a path that ends "
            "in .yaml, or a name that flatguard configs lists"
        )
    return known[str(name)]


def published() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    package = Path(str(resources.files("flatguard")))
    inside = package / "configs"  # of a wheel; beside the package in a checkout
    folder = inside if inside.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def schema() -> dict[str, Any]:
    """The JSON schema of a config, for editors."""
    made = Config.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "A config of flatguard"
    return made

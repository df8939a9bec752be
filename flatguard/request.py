"""EvaluationRequest: every option of an evaluation, once.

A field carries its type, its default, its help text, its group, its check, the name of its option
where that differs, and what it decides. The command line, the YAML config with its JSON schema, the
pytest plugin's `check`, the keywords of `evaluate()` and the manifest follow from it. To add an
option, add a field here and read it where it is used.

Imports no torch: `flatguard --help` needs this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from flatguard.errors import UntrustedCodeError, UsageError, did_you_mean
from flatguard.geometry.budget import Budget, parse_eps
from flatguard.option_values import (
    AtLeastOne,
    BatchSize,
    Channels,
    EngineNames,
    EpsText,
    LossNames,
    NormName,
    OutputText,
    Positive,
    Share,
    SizeText,
    TrackerNames,
)

Checks = Literal["none", "fast", "standard", "full"]
"""How much is spent on the verdict."""

Decides = Literal["evidence", "location", "probes", "verdict", "spending", "logging"]
"""What depends on an option.

- `evidence`: the bytes of the run's blocks.
- `location`: the same; it says where a model or a data set lies, so a cache hashes what lies there.
- `probes`: which checks run after the attack.
- `verdict`: how the evidence is judged.
- `spending`: when the run ends early.
- `logging`: nothing of the run; where its result is shown as well.
"""

M = TypeVar("M", bound=BaseModel)

CONSENT = " --allow-code"
"""What a command needs to load a model by code that a request names."""
TOLERANCE = 0.05
"""The default overestimate that is accepted, as a share of all samples."""
EXAMPLES = "examples:"
"""How the name of an attack begins that shows the stored examples of a file."""
MOST_EXAMPLES = 1000
"""Where `n_examples` is None, at most so many samples are evaluated."""
FAILURES = 0.01
"""Where `max_failures` is None, the model may fail on this share of the samples."""


@dataclass(frozen=True)
class Option:
    """What a field says about its option beside type, default, help text and check.

    Attributes:
        group: the heading in `--help`.
        decides: what depends on it.
        name: on the command line, where it is not the field's.
        metavar: of its value, in `--help`.
    """

    group: str
    decides: Decides = "evidence"
    name: str | None = None
    metavar: str | None = None


class Limits(BaseModel):
    """What a run may spend at most; None is no limit.

    Attributes:
        max_forwards: images sent forward by the attack and by the checks, as both are counted
            under `cost of attack` and `cost of checks`.
        max_minutes: of the process that works at the run, with loading; a process that resumes the
            run has all of them again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_forwards: AtLeastOne | None = None
    max_minutes: Positive | None = None


NO_LIMITS = Limits()


class EvaluationRequest(BaseModel):
    """What is evaluated and how. None means "by default"; a resolved request has the default.

    The radius is kept as it was typed, because 8/255 is no decimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[
        str,
        Field(
            description="demo; a RobustBench entry or a prefix of one; timm:NAME; "
            "torchvision:NAME; hf:NAME; openclip:ARCH/PRETRAINED; or the path of a .safetensors, "
            ".pt, .pth, .ckpt, .bin or .pt2 file. With --prompt a language model: smollm2, hf:NAME "
            "or the path of a .gguf file."
        ),
        Option("Model", "location"),
    ]
    attack: Annotated[
        str,
        Field(
            description="apgd-ce, standard, torchattacks:PGD, foolbox:LinfPGD, ...; examples:FILE "
            "shows stored ones; gcg on prompts."
        ),
        Option("Attack"),
    ]
    attack_args: Annotated[
        dict[str, Any],
        Field(description="An argument of the attack; may be repeated."),
        Option("Attack", name="attack-arg", metavar="NAME=VALUE"),
    ] = {}
    norm: Annotated[
        NormName | None,
        Field(description="Linf, L2, L1, L0 or none; several, Linf,L2, for their union."),
        Option("Attack"),
    ] = None
    eps: Annotated[
        EpsText | None,
        Field(description="The radius for images in [0, 1]: 8/255; one for each norm: 8/255,0.5."),
        Option("Attack"),
    ] = None
    dataset: Annotated[
        str | None,
        Field(
            description="demo, cifar10, cifar100, imagenet; a .npz or .pt; images.npy,labels.npy; "
            "a folder with a subfolder a class; or a .csv of paths and labels."
        ),
        Option("Data", "location"),
    ] = None
    data_dir: Annotated[
        Path, Field(description="Where CIFAR and ImageNet are."), Option("Data", "location")
    ] = Path("data")
    preprocessing: Annotated[
        str | None,
        Field(
            description="RobustBench's name for it, Res256Crop224, ...; or steps: "
            "resize=256:bicubic,crop=224."
        ),
        Option("Data", "location"),
    ] = None
    n_examples: Annotated[
        AtLeastOne | None,
        Field(description=f"The first so many; by default at most {MOST_EXAMPLES}."),
        Option("Data"),
    ] = None
    shuffle: Annotated[
        bool,
        Field(description="Take samples in an order that --seed draws, not the first ones."),
        Option("Data"),
    ] = False
    classes: Annotated[
        Path | None,
        Field(
            description="The model's class names in its order, one a line: labels follow from the "
            "names of folders, of a .csv or of the data set. A zero-shot model needs them."
        ),
        Option("Data", "location", metavar="FILE"),
    ] = None
    templates: Annotated[
        Path | None,
        Field(
            description="The texts of a zero-shot model, one a line, with {} for the class; by "
            "default: a photo of a {}."
        ),
        Option("Model", "location", metavar="FILE"),
    ] = None
    resize: Annotated[
        SizeText | None,
        Field(description="Resize pictures to 224, or to 224x256: height x width."),
        Option("Data"),
    ] = None
    threat_model: Annotated[
        str | None,
        Field(description="RobustBench's table: Linf, L2, corruptions, corruptions_3d."),
        Option("Model"),
    ] = None
    model_dir: Annotated[
        Path, Field(description="RobustBench's checkpoints."), Option("Model", "location")
    ] = Path("models")
    arch: Annotated[
        str | None,
        Field(description="module:factory or file.py:factory for a file of weights."),
        Option("Model", "location"),
    ] = None
    mean: Annotated[
        Channels | None,
        Field(description="Per channel, inside the model: .485,.456,.406"),
        Option("Model"),
    ] = None
    std: Annotated[
        Channels | None,
        Field(description="Per channel, inside the model: .229,.224,.225"),
        Option("Model"),
    ] = None
    head: Annotated[
        str | None, Field(description="The name of the final linear layer."), Option("Model")
    ] = None
    output: Annotated[
        OutputText | None,
        Field(
            description="Which of several outputs has the logits: its name, or its position from 0."
        ),
        Option("Model", metavar="NAME"),
    ] = None
    weights_key: Annotated[
        str | None,
        Field(description="Which weights of a file with several: state_dict_ema."),
        Option("Model", "location"),
    ] = None
    logit_scale: Annotated[
        Positive,
        Field(description="Multiply W and b of the head: the same decisions, surer."),
        Option("Model"),
    ] = 1.0
    allow_code: Annotated[
        bool,
        Field(description="Run the code that files hold or name."),
        Option("Model", "location"),
    ] = False
    batch_size: Annotated[
        BatchSize | None,
        Field(
            description="Samples attacked together, part of the run's identity; auto measures "
            "which number is fastest."
        ),
        Option("Computation"),
    ] = None
    device: Annotated[
        str | None,
        Field(description="cpu, cuda, cuda:1; by default the best."),
        Option("Computation"),
    ] = None
    threads: Annotated[
        AtLeastOne | None,
        Field(description="Of each worker; by default as torch has it, or a share of the cores."),
        Option("Computation"),
    ] = None
    engine: Annotated[
        EngineNames,
        Field(
            description="Compute the search faster: fold-batchnorm, channels-last, compile, "
            "bfloat16 or float16; may be repeated. Results are measured on the model itself."
        ),
        Option("Computation", metavar="NAME"),
    ] = ()
    seed: Annotated[
        int, Field(ge=0, description="Of every random choice."), Option("Computation")
    ] = 0
    gradients: Annotated[
        bool,
        Field(description="Also record input gradients: norm, exact zeros."),
        Option("Measurements"),
    ] = False
    losses: Annotated[
        LossNames,
        Field(description="Also measure focal, focal:GAMMA, brier or kl:ALPHA; may be repeated."),
        Option("Measurements", name="loss", metavar="NAME"),
    ] = ()
    layers: Annotated[
        AtLeastOne | None,
        Field(
            description="Also estimate the sharpness of the last so many layers before the head."
        ),
        Option("Measurements"),
    ] = None
    layer_samples: Annotated[
        AtLeastOne, Field(description="For the first so many samples."), Option("Measurements")
    ] = 4
    checks: Annotated[
        Checks,
        Field(description="What is spent on the verdict: none, fast, standard or full."),
        Option("Verdict", "probes"),
    ] = "fast"
    until_decided: Annotated[
        bool,
        Field(description="Check random survivors first; stop once they show a masked number."),
        Option("Verdict", "probes"),
    ] = False
    surrogates: Annotated[
        tuple[str, ...],
        Field(description="Also show it this model's adversarial examples; may be repeated."),
        Option("Verdict", "probes", name="surrogate", metavar="MODEL"),
    ] = ()
    tolerance: Annotated[
        Share,
        Field(description="The overestimate that is accepted, as a share of all samples."),
        Option("Verdict", "verdict"),
    ] = TOLERANCE
    detector: Annotated[
        Path | None,
        Field(
            description="Also flag samples with a detector that flatguard detect fit wrote for "
            "this model."
        ),
        Option("Verdict", "verdict", metavar="FILE"),
    ] = None
    log_to: Annotated[
        TrackerNames,
        Field(description="Also log the result to mlflow, wandb or tensorboard; may be repeated."),
        Option("Verdict", "logging", metavar="TRACKER"),
    ] = ()
    max_forwards: Annotated[
        AtLeastOne | None,
        Field(description="Images that attack and checks may send forward; then inconclusive."),
        Option("Limits", "spending"),
    ] = None
    max_minutes: Annotated[
        Positive | None,
        Field(description="Minutes that all of it may take; then inconclusive."),
        Option("Limits", "spending"),
    ] = None
    max_failures: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="Samples on which the model may fail; by default one in a hundred."),
        Option("Limits", "spending"),
    ] = None

    def budget(self) -> Budget:
        """The norm and radius of a resolved request."""
        if self.norm is None:
            raise ValueError("the request is not resolved: it has no norm")
        return Budget(self.norm, None if self.eps is None else parse_eps(self.eps))

    @property
    def samples_together(self) -> int:
        """The batch size of a resolved request."""
        if not isinstance(self.batch_size, int):
            raise ValueError("the request is not resolved: it has no batch size")
        return self.batch_size

    @property
    def size(self) -> tuple[int, int] | None:
        """The height and width that pictures are resized to."""
        if self.resize is None:
            return None
        height, width = self.resize.split("x")
        return int(height), int(width)

    @property
    def limits(self) -> Limits:
        """What the run may spend at most."""
        return Limits(max_forwards=self.max_forwards, max_minutes=self.max_minutes)

    def that_decide(self, *what: Decides) -> dict[str, Any]:
        """The fields that these depend on, as JSON holds them."""
        names = {name for name, option in options().items() if option.decides in what}
        return self.model_dump(mode="json", include=names)

    def with_(self, **changes: Any) -> EvaluationRequest:
        """The same request but for these fields, checked.

        Raises:
            UsageError: a field is unknown or out of range.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return make_request(**{**given, **changes})

    @property
    def consent(self) -> str:
        """`CONSENT` if a command needs it to load the model again, else nothing."""
        return CONSENT if self.arch or self.allow_code else ""

    def refuse_code(self, where: str) -> None:
        """Refuse what would run code, where this request comes from a file.

        Raises:
            UntrustedCodeError: an architecture, or a file that may run code when it is loaded.
        """
        named = f"arch {self.arch}" if self.arch else "allow_code" if self.allow_code else None
        if named is not None:
            raise UntrustedCodeError(
                f"{where} names code that would run here ({named}); look at it, and type "
                "--allow-code if you trust it"
            )


def options(model: type[BaseModel] = EvaluationRequest) -> Mapping[str, Option]:
    """The options of a model's fields, by the fields' names."""
    return {
        name: option
        for name, info in model.model_fields.items()
        for option in info.metadata
        if isinstance(option, Option)
    }


def option_name(field: str, model: type[BaseModel] = EvaluationRequest) -> str:
    """A field's option on the command line: `--attack-arg` for `attack_args`."""
    option = options(model).get(field)
    return f"--{(option and option.name) or field.replace('_', '-')}"


def make_request(**fields: Any) -> EvaluationRequest:
    """A request, or one line that names the option, what came, and what was expected.

    Raises:
        UsageError: for a field that is unknown or out of range.
    """
    return validated(EvaluationRequest, fields)


def validated(model: type[M], fields: Mapping[str, Any]) -> M:
    """A model of these fields, or one line that names the option.

    Raises:
        UsageError: for a field that is unknown or out of range.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        reason = reason_of(first)
        if first["type"] == "extra_forbidden":
            reason = f"there is no such option{did_you_mean(field, options(model), 1)}"
        raise UsageError(f"{option_name(field, model)}: {reason}") from error


def reason_of(error: Mapping[str, Any]) -> str:
    """What pydantic reports of one wrong value, as one line."""
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("eps: ")
    if error["type"] == "literal_error" and error["loc"][0] == "checks":
        message = f"expected one of {', '.join(get_args(Checks))}"
    return message if "got" in message else f"{message}, got {error['input']!r}"


def derive_seed(seed: int, block: int, part: str) -> int:
    """The seed of one attack part on one block: 31 bits of SHA-256 over all three."""
    digest = hashlib.sha256(f"{seed}/{block}/{part}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFF_FFFF

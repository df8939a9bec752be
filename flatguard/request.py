"""EvaluationRequest: every option of an evaluation; validated, and frozen once resolved."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
)

from flatguard.errors import UntrustedCodeError, UsageError
from flatguard.geometry.budget import NORMS, Budget, Norm, parse_eps
from flatguard.geometry.named_losses import parse_losses

Checks = Literal["none", "fast", "standard", "full"]
"""How much is spent on the verdict."""

TOLERANCE = 0.05
"""The overestimate that is let pass where nobody says how much, as a share of all samples."""


def _as_text(eps: Any) -> Any:
    return repr(float(eps)) if isinstance(eps, (int, float)) else eps


def _in_our_case(norm: Any) -> Any:
    same = [known for known in NORMS if isinstance(norm, str) and known.lower() == norm.lower()]
    return same[0] if same else norm


def _is_eps(text: str) -> str:
    parse_eps(text)
    return text.strip()


def _are_losses(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(loss.name for loss in parse_losses(names))


EpsText = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_eps)]
NormName = Annotated[Norm, BeforeValidator(_in_our_case)]
LossNames = Annotated[tuple[str, ...], AfterValidator(_are_losses)]


class Settings(BaseModel):
    """All that may be asked for beside the model and the attack; None means "by default".

    The radius is kept as it was typed, because 8/255 is no decimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    arch: str | None = None
    mean: tuple[FiniteFloat, ...] | None = None
    std: tuple[FiniteFloat, ...] | None = None
    threat_model: str | None = None
    model_dir: Path = Path("models")
    head: str | None = None
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    allow_code: bool = False
    dataset: str | None = None
    data_dir: Path = Path("data")
    preprocessing: str | None = None
    n_examples: Annotated[int, Field(ge=1)] | None = None
    attack_args: dict[str, Any] = {}
    norm: NormName | None = None
    eps: EpsText | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    device: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    gradients: bool = False
    losses: LossNames = ()
    layers: Annotated[int, Field(ge=1)] | None = None
    layer_samples: Annotated[int, Field(ge=1)] = 4

    def refuse_code(self, where: str) -> None:
        """Refuse what would run code, where these settings come from a file.

        Raises:
            UntrustedCodeError: an architecture, or a file that may run code when it is loaded.
        """
        named = f"arch {self.arch}" if self.arch else "allow_code" if self.allow_code else None
        if named is not None:
            raise UntrustedCodeError(
                f"{where} names code that would run here ({named}); look at it, and type "
                "--allow-code if you trust it"
            )


class EvaluationRequest(Settings):
    """What is asked for; what is None is gone once the request is resolved."""

    model: str
    attack: str

    def budget(self) -> Budget:
        """The norm and radius of a resolved request."""
        if self.norm is None:
            raise ValueError("the request is not resolved: it has no norm")
        return Budget(self.norm, None if self.eps is None else parse_eps(self.eps))


OPTIONS = {"losses": "--loss"}
"""Fields whose option on the command line is not their name."""


def make_request(**fields: Any) -> EvaluationRequest:
    """A EvaluationRequest, or one line that names the field, what came, and what was expected.

    Raises:
        UsageError: for a field that is unknown or out of range.
    """
    try:
        return EvaluationRequest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        name = OPTIONS.get(field, "--" + field.replace("_", "-"))
        message = first["msg"].removeprefix("Value error, ").removeprefix("eps: ")
        got = f", got {first['input']!r}" if "got" not in message else ""
        raise UsageError(f"{name}: {message}{got}") from error


def derive_seed(seed: int, block: int, part: str) -> int:
    """The seed of one attack part on one block: 31 bits of SHA-256 over all three."""
    digest = hashlib.sha256(f"{seed}/{block}/{part}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFF_FFFF

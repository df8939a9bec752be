"""The protocol of all attacks, and the checks of their arguments.

An adapter builds the library's own object and calls it unchanged. The common steps (seeding,
redirecting printed output, checking the result) are in `Attack.perturb`, which adapters do not
override.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import logging
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import Tensor, nn

from flatguard.attacks.monitor import NO_ORDER, Monitor, NoMonitor, Order, detached
from flatguard.data.dataset import Dataset
from flatguard.environment.randomness import seeded
from flatguard.environment.requirements import install_command
from flatguard.environment.torch_state import own_state
from flatguard.errors import (
    AttackError,
    FlatguardError,
    did_you_mean,
    memory_errors,
    one_line,
)
from flatguard.geometry.budget import Budget, Norm, parse_quotient

WARNINGS = "auto-attack"
"""The logger whose warnings are kept with the attack's result; AutoAttack's own."""

_EXTRAS = {"numba": "foolbox"}
"""The extra of flatguard that installs an optional module."""


@dataclass(frozen=True)
class AttackInfo:
    """Facts about an attack, known before it is built.

    Attributes:
        name: as the user types it: `apgd-ce`, `torchattacks:PGD`, `foolbox:LinfPGD`.
        library: `autoattack`, `torchattacks`, `foolbox`, or `examples` for stored ones.
        norms: the norms that it supports; `("none",)` if it has no budget.
        parameters: the arguments that a user may set, with the library's defaults.
        minimum_norm: it searches for the nearest example and takes no radius.
        order: the order of the rows in its model calls.
        needs: what it requires and no option can supply, or None.
    """

    name: str
    library: str
    norms: tuple[Norm, ...]
    parameters: Mapping[str, inspect.Parameter]
    minimum_norm: bool = False
    order: Order = NO_ORDER
    needs: str | None = None


@dataclass(frozen=True)
class Perturbed:
    """The images that an attack returned, and the warnings of its library."""

    images: Tensor
    warnings: tuple[str, ...]


class _NeverEmpty(nn.Module):
    """A model that accepts an empty batch; some attacks send one once every sample is fooled."""

    def __init__(self, model: nn.Module, num_classes: int):
        super().__init__()
        self.model, self._num_classes = model, num_classes
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits; for no images `(0, classes)`, connected to the input's graph."""
        if len(images):
            logits: Tensor = self.model(images)
            # Square writes into its losses, which is forbidden in tensors of inference mode.
            return logits.clone() if logits.is_inference() else logits
        return images.flatten(1)[:, :1].expand(0, self._num_classes)


_CUT_GRAPH = ("does not require grad", "not have been used in the graph")
_MANY_CLASSES = 10
ONE_IMAGE = (
    "; this is a single image: does the model take a batch of one? squeeze() and batch norm in "
    "training mode do not"
)
_WITHOUT_GRADIENTS: dict[Norm, str] = {
    "L0": "--attack torchattacks:OnePixel",
    "none": "--attack square, a --norm and an --eps",
}


def without_gradients(norm: Norm) -> str:
    """The options of an attack that runs on any model and needs no gradients, as advice."""
    return _WITHOUT_GRADIENTS.get(norm, "--attack square")


@dataclass
class Attack(ABC):
    """An attack with its budget and arguments, which runs on batches.

    Attributes:
        info: the facts about the attack.
        budget: the norm and radius it was built for.
        num_classes: of the model it was built for.
        args: the user's arguments, checked.
        notes: what a person should know about this attack on these images; warnings of the run.
    """

    info: AttackInfo
    budget: Budget
    num_classes: int
    args: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), init=False)

    def meet(self, dataset: Dataset, count: int) -> None:  # noqa: B027
        """See the first `count` images of the data before any of them is attacked.

        Only an attack that needs them all overrides it.
        """

    @final
    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        seed: int,
        monitor: Monitor | None = None,
    ) -> Perturbed:
        """Run the attack on one batch.

        Args:
            model: in eval mode, on the images' device.
            images: `(n, channels, height, width)` float32 in [0, 1], contiguous.
            labels: `(n,)` int64.
            seed: seeds torch, NumPy and `random` for this batch, and the attack itself if it
                takes a seed. All three generators are restored afterwards.
            monitor: receives the start and the end of the attack's runs; it changes nothing.

        Raises:
            AttackError: the library raises, or its result has another shape.
            OutOfMemory: the memory is too small for this many images.
        """
        monitor = monitor or NoMonitor()
        with (
            own_state(),
            seeded(seed, images.device),
            _trace_kept(),
            _quiet() as warnings,
            monitor.attack(),
            detached(monitor) as watching,
        ):
            try:
                with memory_errors(f"{self.info.name} on {len(images)} images at once"):
                    shown = _NeverEmpty(model, self.num_classes)
                    result = self._run(shown, images.clone(), labels.clone(), seed, watching)
            except FlatguardError:
                raise
            except ModuleNotFoundError as error:
                extra = _EXTRAS.get(error.name or "")
                how = install_command(f"flatguard[{extra}]" if extra else str(error.name))
                raise AttackError(f"{self.info.name} needs {error.name}: {how}") from error
            except Exception as error:  # a library and a user's model may raise anything
                hint = self._hint(error, len(images))
                raise AttackError(
                    f"{self.info.name} failed: {type(error).__name__}: {one_line(error)}{hint}"
                ) from error
        if not isinstance(result, Tensor) or result.shape != images.shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise AttackError(
                f"{self.info.name}: expected images of shape {tuple(images.shape)} back, got {got}"
            )
        images = result.detach().to(images.dtype).contiguous()
        return Perturbed(images, (*self.notes, *warnings))

    def _hint(self, error: Exception, rows: int) -> str:
        """What to do about an error of the library or of the model."""
        if any(sign in str(error) for sign in _CUT_GRAPH):
            return (
                "; the model gives no gradient in its input: attack it with "
                f"{without_gradients(self.budget.norm)}; the checks will try to work around it"
            )
        if isinstance(error, IndexError) and self.num_classes < _MANY_CLASSES:
            return f"; the model has {self.num_classes} classes, and the attack may need more"
        return ONE_IMAGE if rows == 1 else ""

    @abstractmethod
    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        """Build the library's object, connect the monitor, and run the attack."""

    @abstractmethod
    def effective_args(self) -> dict[str, Any]:
        """Every argument as the library receives it, with its defaults."""

    def expected_calls(self) -> int | None:
        """About how many model calls one batch takes, for the progress bar; None if unknown."""
        steps = self.effective_args().get("steps")
        return steps if isinstance(steps, int) else None


@contextlib.contextmanager
def _trace_kept() -> Iterator[None]:
    """AutoAttack's search for dynamic defences ends with `sys.settrace(None)`; undo that."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Redirect printed output to stderr (stdout is for `--json`); collect AutoAttack's warnings."""
    logger, handler = logging.getLogger(WARNINGS), _Collect()
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield handler.messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def parameters_of(callable_: Any, hidden: set[str]) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor that a user may set: all but the `hidden` ones."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in inspect.signature(callable_).parameters.items()
        if name not in hidden and name != "self" and parameter.kind not in kinds
    }


def check_args(info: AttackInfo, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given arguments, after checking that the attack has them and that their types fit.

    Raises:
        AttackError: an unknown name (with the valid ones), a wrong type, or a missing required
            argument.
    """
    if info.needs:
        raise AttackError(f"{info.name} needs {info.needs}")
    given = {n: v.item() if isinstance(v, np.generic) else v for n, v in given.items()}
    for name, value in given.items():
        if not _is_plain(value):
            raise AttackError(
                f"{info.name}: expected a number, a word or a list of them for {name}, "
                f"got {type(value).__name__}"
            )
        if name in ("eps", "epsilon", "max_epsilon", "epsilons"):
            raise AttackError(f"{info.name}: give the radius with --eps, not as an attack argument")
        if name in ("norm", "distance", "constraint"):
            raise AttackError(f"{info.name}: give the norm with --norm, not as an attack argument")
        if name not in info.parameters:
            valid = ", ".join(info.parameters) or "none"
            raise AttackError(
                f"{info.name} has no argument {name!r}{did_you_mean(name, info.parameters, 1)}; "
                f"valid: {valid}"
            )
    for name, parameter in info.parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in given:
            raise AttackError(f"{info.name} needs --attack-arg {name}=...")
        if name in given and not _fits(parameter.default, given[name]):
            raise AttackError(
                f"{info.name}: expected {type(parameter.default).__name__} for {name} "
                f"(its default is {parameter.default!r}), got {given[name]!r}"
            )
    return {name: _whole(info, name, value) for name, value in given.items()}


_COUNTS = re.compile(r"(n|num|max|init)_\w+|steps|\w+_steps|restarts|queries|\w+_iter|iterations")
"""Names of arguments that count something."""


def _whole(info: AttackInfo, name: str, value: Any) -> Any:
    """A float as an int where the default is one: libraries use it as a count.

    Raises:
        AttackError: an argument that counts is not whole.
    """
    default = info.parameters[name].default
    if not isinstance(value, float) or not isinstance(default, int) or isinstance(default, bool):
        return value
    if value.is_integer():
        return int(value)
    if _COUNTS.fullmatch(name):
        raise AttackError(
            f"{info.name}: expected a whole number for {name} (its default is {default!r}), got "
            f"{value!r}"
        )
    return value


def _fits(default: Any, value: Any) -> bool:
    if default is None or default is inspect.Parameter.empty:
        return True
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, (int, float)):
        # Libraries write c=1 for parameters that take any number.
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    return isinstance(value, type(default))


def parse_value(text: str) -> Any:
    """A command line's value: `10`, `2/255`, `0.1`, `true`, `none`, `(2, 10)` or a word."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    # Python's parser raises one of the last two for input that is nested too deeply.
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        value = ast.literal_eval(text)
        return value if _is_plain(value) else text
    quotient = parse_quotient(text) if "/" in text else None
    return text if quotient is None else quotient


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a word or a list of these, which a manifest can store."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def parse_args(pairs: list[str]) -> dict[str, Any]:
    """`["steps=10", "alpha=2/255"]` as a dict."""
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not name:
            raise AttackError(f"--attack-arg: expected name=value, got {pair!r}")
        if name in parsed:
            raise AttackError(f"--attack-arg: {name} is given twice")
        parsed[name] = parse_value(value)
    return parsed

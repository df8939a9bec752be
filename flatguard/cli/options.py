"""The options of the commands: those of a request follow from its fields, the others are here."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, Field
from typer.core import TyperCommand

from flatguard.request import EvaluationRequest, Option, option_name, options

if TYPE_CHECKING:
    from flatguard.execution.executors import Executor

MODEL_AND_DATA = [
    *(name for name, option in options().items() if option.group in ("Model", "Data")),
    "batch_size", "device", "seed",
]  # fmt: skip
"""The fields that say which model is shown which images, and how."""

Out = Annotated[
    str | None,
    typer.Option(help="The run folder, or s3://bucket/run; by default a new one in reports/."),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the answer.")]


class Executing(BaseModel):
    """Who attacks the blocks of a run and gathers its evidence; the result is the same."""

    workers: Annotated[
        int | None, Field(description="Attack and check in so many processes."), Option("Execution")
    ] = None
    executor: Annotated[
        str, Field(description="processes, or ray for a cluster."), Option("Execution")
    ] = "processes"
    address: Annotated[
        str | None, Field(description="Of the Ray cluster; auto finds it."), Option("Execution")
    ] = None
    shard: Annotated[
        str | None,
        Field(description="Attack only the I-th of N parts; then merge."),
        Option("Execution", metavar="I/N"),
    ] = None


def takes(
    fields: Collection[str],
    *,
    of: type[BaseModel] = EvaluationRequest,
    into: str = "given",
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of these fields of a model.

    Args:
        fields: names of fields, in any order; `--help` has them in the model's.
        of: the model.
        into: the parameter of the command that receives the values, as a dict by field.
        **defaults: of options, in place of the fields'.
    """
    chosen = [name for name in of.model_fields if name in fields]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**typed: Any) -> None:
            values = {name: _value(of, name, typed.pop(name)) for name in chosen}
            return command(**typed, **{into: values})

        made = [_parameter(of, name, defaults) for name in chosen]
        found = _parameters(command)
        at = [parameter.name for parameter in found].index(into)
        found[at : at + 1] = made
        keyword = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([each.replace(kind=keyword) for each in found])
        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in found}
        return called

    return decorate


def _parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    hints = get_type_hints(command, include_extras=True)
    found = inspect.signature(command).parameters.values()
    return [each.replace(annotation=hints[each.name]) for each in found]


def _parameter(model: type[BaseModel], name: str, defaults: Mapping[str, Any]) -> inspect.Parameter:
    """The parameter from which typer makes a field's option."""
    info, option = model.model_fields[name], options(model)[name]
    kind = _typed_as(info.annotation)
    default = defaults.get(name, ... if info.is_required() else info.default)
    if get_origin(kind) is list:
        default = None
    made = typer.Option(
        option_name(name, model),
        help=info.description,
        metavar=option.metavar,
        rich_help_panel=option.group,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is ... else default,
        annotation=Annotated[kind | None if default is None else kind, made],
    )


def _typed_as(annotation: Any) -> Any:
    """What a person types for a field of this type: a list where its option may be repeated."""
    if get_origin(annotation) is Annotated:
        return _typed_as(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _typed_as(next(each for each in get_args(annotation) if each is not type(None)))
    if get_origin(annotation) is dict or annotation == tuple[str, ...]:
        return list[str]
    return annotation if annotation in (bool, int, float, Path) else str


def _value(model: type[BaseModel], name: str, typed: Any) -> Any:
    """What was typed, as the field takes it; the model checks it."""
    annotation = model.model_fields[name].annotation
    if get_origin(annotation) is dict:
        from flatguard.attacks import parse_args

        return parse_args(typed or [])
    return tuple(typed or ()) if _typed_as(annotation) == list[str] else typed


def executor_of(executing: Mapping[str, Any]) -> Executor:
    """The executor that the options of `Executing` name."""
    from flatguard.execution.executors import choose

    return choose(executing["executor"], executing["workers"], executing["address"])


def is_typed(ctx: typer.Context, field: str) -> bool:
    """Whether a person typed this option, or it has its default."""
    source = ctx.get_parameter_source(field)
    return source is not None and source.name != "DEFAULT"


class GroupedCommand(TyperCommand):
    """A command whose `--help` has the options by the groups of their fields."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group, in the order in which groups begin."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            group = getattr(parameter, "rich_help_panel", None) or usual
            if record is not None:
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)

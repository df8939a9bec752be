"""Options that follow from the fields of a model."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import BaseModel, Field

from flatguard.cli.options import GroupedCommand, is_typed, takes
from flatguard.request import EvaluationRequest, Option, option_name, options


class Toy(BaseModel):
    width: Annotated[int, Field(description="How wide."), Option("Size")]
    names: Annotated[
        tuple[str, ...], Field(description="Names."), Option("Words", name="name", metavar="X")
    ] = ()
    deep: Annotated[bool, Field(description="Deep."), Option("Size")] = False
    folder: Annotated[Path | None, Field(description="Where."), Option("Words")] = None


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @made.command(cls=GroupedCommand)
    @takes(("deep", "width", "names"), of=Toy, folder=None)
    def command(
        ctx: typer.Context, *, given: dict[str, Any], other: Annotated[int, typer.Option()] = 1
    ) -> None:
        """Print what was given."""
        typer.echo(f"{given} {other} {is_typed(ctx, 'names')}")

    return made


def call(app: typer.Typer, *arguments: str) -> None:
    app(args=list(arguments), prog_name="toy", standalone_mode=False)


def test_values_arrive_by_field(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    call(app, "--width", "3", "--name", "a", "--name", "b", "--deep", "--other", "2")
    expected = "{'width': 3, 'names': ('a', 'b'), 'deep': True} 2 True\n"
    assert capsys.readouterr().out == expected
    call(app, "--width", "3")
    assert capsys.readouterr().out == "{'width': 3, 'names': (), 'deep': False} 1 False\n"


def test_help_has_the_groups_of_the_fields(
    app: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    call(app, "--help")
    sections = capsys.readouterr().out.split("\n\n")
    size = next(section for section in sections if section.lstrip().startswith("Size:"))
    assert "--width" in size
    assert "[required]" in size
    assert "--deep" in size
    assert "--no-deep" not in size
    assert any("--name X" in section and "Words:" in section for section in sections)


def test_a_required_field_is_a_required_option(app: typer.Typer) -> None:
    with pytest.raises(Exception, match=r"(?i)width"):
        call(app)


def test_every_field_of_a_request_is_an_option_of_evaluate(cli) -> None:
    shown = cli("evaluate", "--help").out
    assert set(options()) == set(EvaluationRequest.model_fields)
    for name, info in EvaluationRequest.model_fields.items():
        assert info.description
        assert f"  {option_name(name)} " in shown

"""Options classes as options of a command: one for each field, and the classes back."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from qr_core import InputError
from qr_core.cli.flat import Command, Only, flat, listed, names_in
from qr_core.fields import option
from qr_core.registry import Registry

COLOURS: Registry[int] = Registry("colour")
COLOURS.add("red", 1)
NAMES = names_in("tests.unit.cli.test_flat:COLOURS", "none")


@dataclass(frozen=True)
class Paint:
    """Options of every kind."""

    PANEL = "Paint"

    name: str | None = option(None, "Its name.")
    colour: str = option("red", "Its colour.", registry="tests.unit.cli.test_flat:COLOURS")
    coats: int = option(1, "How many.", least=1, most=3)
    matt: bool = option(False, "Not glossy.")
    dry: bool | None = option(None, "Dry already.")
    primer: bool = option(True, "Prime first.", flags="--primed/--not-primed")
    order: Literal["given", "reversed"] = option("given", "Order.")
    sizes: tuple[int, ...] = option((1, 2), "Sizes.", least=1)
    shares: tuple[float, ...] = option((0.0, 0.25), "Shares.", least=0, most=1)
    about: dict[str, Any] | None = option(None, "More.", cli=str, parse=lambda text: {"about": text})
    hidden: int = 7
    python: int = option(5, "In Python alone.", absent={"cli": "it is not for commands"})
    elsewhere: int = option(6, "Not for every command.", absent={"dip": "dipped things have none"})


@dataclass(frozen=True)
class Room:
    """Options within options."""

    height: int = option(2, "Its height.", flags=("--height", "--tall"))
    paint: Paint = field(default_factory=Paint)


@dataclass(frozen=True)
class Brush:
    """Another class with an option of the same name."""

    coats: int = option(9, "Brush strokes.")


def runs(command, *words: str, place: str = "paint"):
    """What a command gets, from the words of a command line."""
    got: list[dict[str, Any]] = []
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.callback()
    def main() -> None:
        """More than one command."""

    app.command("go", cls=Command)(flat(command(got), place))
    found = CliRunner().invoke(app, ["go", *words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found, got[0] if got else None


def painting(got):
    def command(
        wall: Annotated[str, typer.Option(help="Which wall.")],
        paint: Paint,
        fast: Annotated[bool, typer.Option()] = False,
    ) -> None:
        got.append({"wall": wall, "paint": paint, "fast": fast})

    return command


def test_one_option_for_each_field_and_the_class_back():
    _, got = runs(painting, "--wall", "north")
    assert got == {"wall": "north", "paint": Paint(), "fast": False}
    words = "--name n --colour blue --coats 3 --matt --no-dry --not-primed --order reversed --sizes 4,5 --shares 0,0.5"
    _, got = runs(painting, "--wall", "north", "--fast", *words.split(), "--about", "x", "--elsewhere", "8")
    expected = Paint("n", "blue", 3, True, False, False, "reversed", (4, 5), (0.0, 0.5), {"about": "x"}, elsewhere=8)
    assert got == {"wall": "north", "paint": expected, "fast": True}


def test_the_flat_signature_has_no_classes():
    found = flat(painting([]), "paint")
    names = list(inspect.signature(found).parameters)
    assert names[:3] == ["wall", "name", "colour"]
    assert not {"paint", "hidden", "python"} & set(names)
    assert set(found.__annotations__) == set(names)
    assert "elsewhere" in names
    assert "elsewhere" not in inspect.signature(flat(painting([]), "dip")).parameters


def test_defaults_of_an_object_and_only_some_fields():
    def command(got):
        def go(paint: Annotated[Paint, Only("name", "coats")] = Paint("given", coats=2, hidden=1)) -> None:
            got.append({"paint": paint})

        return go

    _, got = runs(command)
    assert got == {"paint": Paint("given", coats=2, hidden=1)}
    _, got = runs(command, "--coats", "3")
    assert got == {"paint": Paint("given", coats=3, hidden=1)}
    assert runs(command, "--matt")[0].exit_code == 2


def test_classes_in_classes_and_names_that_several_have():
    def command(got):
        def go(room: Room, brush: Brush) -> None:
            got.append({"room": room, "brush": brush})

        return go

    _, got = runs(command, "--tall", "4", "--coats", "3")
    assert got == {"room": Room(4, Paint(coats=3)), "brush": Brush(3)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sizes", "1,x"], "--sizes '1,x': use whole numbers separated by commas"),
        (["--sizes", "0"], "--sizes '0': use whole numbers from 1"),
        (["--shares", "2"], "--shares '2': use numbers from 0 to 1"),
    ],
)
def test_lists_out_of_range(words, says):
    with pytest.raises(InputError) as error:
        runs(painting, "--wall", "north", *words)
    assert str(error.value) == says


def test_listed_names():
    assert listed("--x", "a, b,", str, {}) == ("a", "b")
    assert listed("--x", "", int, {}) == ()


@pytest.mark.parametrize("words", [["--coats", "4"], ["--coats", "0"], ["--order", "up"], ["--python", "1"]])
def test_bounds_and_choices_are_checked(words):
    found, got = runs(painting, "--wall", "north", *words)
    assert found.exit_code == 2
    assert got is None


def test_help_has_sections_and_the_names_of_registries():
    text = runs(painting, "--help")[0].output
    options, paint = text.index("Options:"), text.index("Paint:")
    assert options < text.index("--wall") < paint < text.index("--colour <red>")
    COLOURS.add("blue", 2)
    try:
        assert "--colour <red|blue>" in runs(painting, "--help")[0].output
    finally:
        COLOURS.remove("blue")
    assert "default: 1,2" in text
    assert "default: 0,0.25" in text


def test_names_beside_a_registry():
    def command(got):
        def go(colour: Annotated[str, typer.Option(metavar=NAMES)] = "red") -> None:
            got.append({"colour": colour})

        return go

    assert "--colour <red|none>" in runs(command, "--help")[0].output


def test_the_command_line_imports_no_torch_before_it_is_needed():
    code = "import qr_core.cli.main, sys; print('torch' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

"""What `-v` shows is what the library logs."""

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

import onnx_upscale
from onnx_upscale.cli import main
from onnx_upscale.cli.verbose import shown_log

MODELS = Path(__file__).parents[2] / "models"
MODEL, MASKS = str(MODELS / "digits.onnx"), str(MODELS / "digits.masks.json")


def test_the_library_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnx_upscale"):
        onnx_upscale.optimize(MODEL, MASKS, verify=False)
    stages, head, *pinned = caplog.messages
    assert [part.split()[0] for part in stages.split(", ")] == ["load", "analyze", "plan", "apply"]
    assert head == "pinned:"
    assert pinned == ["  segment 11 (10 channels): graph output"]


def test_the_library_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    onnx_upscale.optimize(MODEL, MASKS, verify=False)
    assert capfd.readouterr() == ("", "")


def test_the_command_line_shows_it_on_standard_error(tmp_path: Path) -> None:
    arguments = [MODEL, MASKS, str(tmp_path / "out.onnx"), "--no-verify", "-q"]
    quiet = CliRunner().invoke(main, arguments)
    assert (quiet.exit_code, quiet.output) == (0, "")
    verbose = CliRunner().invoke(main, [*arguments, "-v"])
    assert (verbose.exit_code, verbose.stdout) == (0, "")
    assert verbose.stderr.splitlines()[1:] == [
        "pinned:",
        "  segment 11 (10 channels): graph output",
    ]


def test_the_log_is_as_before_afterwards() -> None:
    logger = logging.getLogger("onnx_upscale")
    before = (logger.level, list(logger.handlers))
    with pytest.raises(KeyError), shown_log(True):
        assert logger.isEnabledFor(logging.INFO)
        raise KeyError
    assert (logger.level, logger.handlers) == before

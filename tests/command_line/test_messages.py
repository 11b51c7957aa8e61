"""The library names parameters, the command line its options."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_upscale
from build import Net
from onnx_upscale import UsageError, VerifySetupError
from onnx_upscale.cli import main
from onnx_upscale.cli.messages import as_options

ROOT = Path(onnx_upscale.__file__).parent


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the code of the library that is no docstring, with where it is."""
    for path in sorted(ROOT.rglob("*.py")):
        if "cli" in path.relative_to(ROOT).parts:
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None  # A docstring.
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def shown(message: str, command: str) -> str:
    """A message as a command shows it."""
    with click.Context(main) as root:
        running = main.get_command(root, command)
        assert running is not None
        with click.Context(running, parent=root):
            return as_options(message)


def test_no_text_of_the_library_names_an_option() -> None:
    assert [place for place, text in texts() if re.search(r"(^|\s)--[a-z]", text)] == []


def test_all_parameters_that_messages_name_have_an_option() -> None:
    named = {word for _, text in texts() for word in re.findall(r"`([\w=]+)`", text)}
    assert {"verify_at", "verify=False", "amount", "inputs", "args"} <= named
    lost = {word for word in named if shown(f"`{word}`", "optimize").startswith("`")}
    assert lost == {"share"}  # Of `price`, in Python only.


@pytest.mark.parametrize(
    ("message", "command", "expected"),
    [
        ("`verify_at` x: not there", "optimize", "--verify-at x: not there"),
        ("or with `tune`", "verify", "or with --tune"),
        ("`verify=False` does without", "export", "--no-verify does without"),
        ("`inputs` or `batch`", "bench", "--input or --batch"),
        ("`layers` conv: no layer", "mask", "--layers conv: no layer"),
        ("`threads` -1", "price", "--threads -1"),
        ("'`in.onnx`' or `other` or verify", "optimize", "'`in.onnx`' or `other` or verify"),
    ],
)
def test_what_the_command_line_makes_of_it(message: str, command: str, expected: str) -> None:
    assert shown(message, command) == expected


def sample() -> onnx.ModelProto:
    net = Net(17, x=(1, "n", 4))
    return net.model(net("MatMul", "x", net.constant(np.ones((4, 4), np.float32), "w")))


def test_both_say_the_same(tmp_path: Path) -> None:
    path, out = str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    onnx.save(sample(), path)
    with pytest.raises(UsageError) as raised:
        onnx_upscale.optimize(path, verify_at=["nowhere"])
    assert str(raised.value).startswith("`verify_at` nowhere: no node")
    result = CliRunner().invoke(main, [path, "-", out, "--verify-at", "nowhere"])
    message = str(raised.value).replace("`verify_at`", "--verify-at")
    assert (result.exit_code, result.stderr) == (2, f"onnx-upscale: error: {message}\n")


def test_a_model_that_does_not_run_is_said_how_to_do_without(tmp_path: Path) -> None:
    net = Net(17, x=(1, 4))
    hidden = net.declare(net("Nothing", "x", domain="no.such"), (1, 4))
    result = net("MatMul", hidden, net.constant(np.ones((4, 4), np.float32), "w"))
    y = onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, (1, 4))
    graph = onnx.helper.make_graph(net.nodes, "net", net.inputs, [y], net.initializers)
    opsets = [onnx.helper.make_opsetid(domain, 1 + 16 * (not domain)) for domain in ("", "no.such")]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path, out = str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    onnx.save(model, path)
    with pytest.raises(VerifySetupError, match=r"; `verify=False` does without$"):
        onnx_upscale.optimize(path)
    ended = CliRunner().invoke(main, [path, "-", out])
    assert ended.exit_code == 2
    assert ended.stderr.endswith("; --no-verify does without\n")

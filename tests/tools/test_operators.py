"""docs/operators.md accounts for every operator, and says what the rules do."""

import sys
from pathlib import Path
from unittest import mock

import pytest

import operators
from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.rules import NO_RULE, RULES, UNRULED
from onnx_upscale.optimizer.analyze.rules.table import rule


def test_every_operator_has_a_rule_or_a_reason() -> None:
    """Red where a release of onnx or onnxruntime brings one that nobody has thought about."""
    known = operators.operators()
    assert len(known[""]) > 190
    assert len(known["com.microsoft"]) > 100
    assert operators.missing(known) == []


def test_an_operator_that_the_table_lacks_is_named() -> None:
    known = {"": ["Relu", "TopK", "FromTomorrow"], "com.microsoft": ["Relu"], "of.others": ["X"]}
    assert operators.missing(known) == ["ai.onnx.FromTomorrow", "com.microsoft.Relu"]


def test_the_page_is_what_the_tool_makes() -> None:
    """If this fails: `python tools/operators.py`."""
    written = operators.PAGE.read_text()
    if operators.versions() not in written:
        pytest.skip("made for other versions")
    assert written == operators.page()


@pytest.mark.parametrize(
    ("operator", "does"),
    [
        ("Relu", "channel by channel"),
        ("Add", "joins"),
        ("Concat", "joins, moves"),
        ("Conv", "contracts, groups"),
        ("Transpose", "moves"),
        ("Softmax", "channel by channel, needs whole"),
        ("ReduceSum", "channel by channel, needs whole"),
        ("Gather", "embeds, moves"),
        ("Shape", "reads sizes"),
        ("MatMul", "contracts, joins, groups, channel by channel"),
    ],
)
def test_what_a_rule_does_is_read_off_it(operator: str, does: str) -> None:
    assert ", ".join(operators.account_of(RULES["", operator]).does) == does


def test_reasons_are_read_off_a_rule() -> None:
    with mock.patch.dict(RULES):

        @rule("Own", domain="com.microsoft")
        def own(node: Context) -> None:
            """Does nothing good.

            And more that the page does not say.
            """
            if node.has(1):
                raise UnclearError(f"it has {node.shape(1)} of them")
            node.attribute("no reason")
            node.need(0, 1, "reason of its own")
            node.pin_others(0, {1}, "reason of others")

        account = operators.account_of(RULES["com.microsoft", "Own"])
    assert account.summary == "Does nothing good."
    assert account.does == ("needs whole",)
    assert sorted(account.reasons) == [
        "it has ... of them",
        "reason of its own",
        "reason of others",
    ]


def test_a_rule_comes_before_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert UNRULED["com.microsoft", "Snpe"]
    with mock.patch.dict(RULES, {("com.microsoft", "Snpe"): RULES["", "Relu"]}):
        page = operators.page()
        path = mock.patch.object(operators, "PAGE", tmp_path / "operators.md")
        with path, mock.patch.object(sys, "argv", ["operators"]):
            assert operators.main() == 0
    said = capsys.readouterr().err
    assert "have rules, and need no reason" in said
    assert "Snpe" in said
    rows = [line for line in page.splitlines() if "Snpe" in line]
    assert len(rows) == 1
    assert rows[0].startswith("| Snpe | channel by channel |")


def test_check_tells_whether_the_page_is_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "operators.md"
    path.write_text("old")
    with mock.patch.object(operators, "PAGE", path):
        with mock.patch.object(sys, "argv", ["operators", "--check"]):
            assert operators.main() == 1
            assert "operators.md" in capsys.readouterr().err
        with mock.patch.object(sys, "argv", ["operators"]):
            assert operators.main() == 0
        with mock.patch.object(sys, "argv", ["operators", "--check"]):
            assert operators.main() == 0
            path.write_text(path.read_text() + "x")
            assert operators.main() == 1


def test_what_could_lose_channels_is_no_reason_of_its_own() -> None:
    assert NO_RULE not in operators.page()

"""What becomes of channels in every operator of ONNX and of onnxruntime: docs/operators.md.

    python tools/operators.py [--check]

Writes the page, or with `--check` says whether it is what would be written; the exit status is 1 if
not. What a rule does is read off its source: which methods of `Context` are called by it and by the
functions that it is made of, and the reasons that they give. So a rule that changes takes its line
along.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from onnx_upscale.optimizer.analyze.context import UnclearError
from onnx_upscale.optimizer.analyze.rules import NO_RULE, RULES, UNRULED

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
DOMAINS = {"": "The ONNX standard", "com.microsoft": "onnxruntime: `com.microsoft`"}
_PACKAGE = "onnx_upscale.optimizer.analyze"

WORDS = {
    "contracts": "sums over its channels and makes new ones; where its weight is constant it is a "
    "layer, which masks can name",
    "embeds": "makes channels of a constant table",
    "joins": "puts several inputs together: channel upon channel, which then leave together, or "
    "side by side",
    "moves": "takes channels to other places as they are",
    "groups": "has blocks of channels that leave together, as where axes merge and split",
    "channel by channel": "the same channels go out as came in, with new values",
    "needs whole": "along some axes, all channels are needed, in any order",
    "reads sizes": "no channel matters, only how many there are",
}
"""What a rule can do, in the order in which the page says it."""

_SAYS = {
    "contracts": "contracts",
    "contracts_pairs": "contracts",
    "embeds": "embeds",
    "join": "joins",
    "concatenates": "joins",
    "move": "moves",
    "tie": "groups",
    "grid": "groups",
    "pass_on": "channel by channel",
    "need": "needs whole",
    "need_made": "needs whole",
}
_NOT_YET = "nobody has written down yet which channels it could lose"
_KEEPS = {"need", "need_made", "pin", "pin_others", "pin_part", UnclearError.__name__}


@dataclass(frozen=True)
class Account:
    """What becomes of channels in an operator.

    Attributes:
        does: What its rule does, as `WORDS`.
        summary: The same in a sentence.
        reasons: Why it may keep channels.
    """

    does: tuple[str, ...]
    summary: str
    reasons: tuple[str, ...]


def account_of(rule: Any) -> Account:
    """Reads off a rule what it does."""
    called: dict[str, None] = {}
    reasons: dict[str, None] = {}
    for name, arguments in _calls(rule, set()):
        called[name] = None
        texts = [_text(argument) for argument in arguments]
        reasons.update(dict.fromkeys(text for text in texts if text and name in _KEEPS))
    found = {_SAYS[name] for name in called if name in _SAYS} or {"reads sizes"}
    summary = (inspect.getdoc(rule) or "").split("\n\n")[0].replace("\n", " ")
    return Account(tuple(word for word in WORDS if word in found), summary, tuple(reasons))


def _calls(rule: Any, seen: set[Any]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Names of what is called in a function and in those of the package that it names."""
    while isinstance(rule, functools.partial):
        rule = rule.func
    if not isinstance(rule, FunctionType) or rule in seen:
        return
    seen.add(rule)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(rule)))):
        if isinstance(node, ast.Call):
            name = _name_of(node.func)
            yield name, [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node, ast.Name):
            named = rule.__globals__.get(node.id)
            if getattr(named, "__module__", "").startswith(_PACKAGE):
                yield from _calls(named, seen)


def _name_of(called: ast.expr) -> str:
    """The name of a function, or of a method of something that has a name."""
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _text(argument: ast.expr) -> str:
    """A text that is written out, with dots for what a run puts in."""
    if isinstance(argument, ast.JoinedStr):
        return "".join(_text(value) or "..." for value in argument.values)
    is_text = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    return str(argument.value) if is_text and isinstance(argument, ast.Constant) else ""


def operators() -> dict[str, list[str]]:
    """The operators that this onnx and this onnxruntime know, by domain, sorted."""
    standard = onnx.defs.get_all_schemas()
    domains = {schema.domain for schema in standard}  # onnxruntime knows older versions of these.
    others = [schema for schema in get_all_operator_schema() if schema.domain not in domains]
    found: dict[str, set[str]] = defaultdict(set)
    for schema in [*standard, *others]:
        found[schema.domain].add(schema.name)
    for domain, name in RULES:  # onnxruntime has operators of its own in the domain of onnx.
        if domain in DOMAINS:
            found[domain].add(name)
    return {domain: sorted(names) for domain, names in found.items()}


def missing(known: Mapping[str, list[str]]) -> list[str]:
    """The operators that have neither a rule nor a reason why not."""
    return [
        f"{domain or 'ai.onnx'}.{name}"
        for domain in DOMAINS
        for name in known.get(domain, ())
        if (domain, name) not in RULES and (domain, name) not in UNRULED
    ]


def versions() -> str:
    """What the page depends on besides the rules."""
    opset = onnx.defs.onnx_opset_version()
    return (
        f"onnx {onnx.__version__} (operator set {opset}) and onnxruntime {onnxruntime.__version__}"
    )


def page() -> str:
    """The page as it must be."""
    known = operators()
    lines = [
        "# Operators",
        "",
        "<!-- Made by tools/operators.py; do not edit. -->",
        "",
        "What becomes of channels in every operator. One without a rule keeps its channels, all of",
        "them in their order, and so does one with a rule in a use that the rule does not cover:",
        "that costs speed, never correctness. Rules want to know the shapes that they work on.",
        "Rules for operators of your own: [rules.md](rules.md).",
        "",
        f"These are the operators of {versions()}.",
        "",
        "| a rule | |",
        "|---|---|",
        *(f"| {word} | {meaning} |" for word, meaning in WORDS.items()),
    ]
    for domain, title in DOMAINS.items():
        lines += ["", f"## {title}", "", *_section(domain, known[domain])]
    others = sorted(domain for domain in known if domain not in DOMAINS)
    named = ", ".join(f"`{domain}` ({len(known[domain])})" for domain in others)
    lines += ["", "## Other domains", "", f"No operator of these has a rule; all pin: {named}.", ""]
    return "\n".join(lines)


def _section(domain: str, names: list[str]) -> list[str]:
    by_rule: dict[Any, list[str]] = defaultdict(list)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name in names:
        rule = RULES.get((domain, name))
        if rule is not None:
            by_rule[rule].append(name)
        else:
            by_reason[UNRULED[domain, name]].append(name)
    ruled = sum(map(len, by_rule.values()))
    lines = [f"{len(names)} operators, of which {ruled} have a rule."]
    if by_rule:
        lines += [
            "",
            "| operator | its rule | in short | channels stay where |",
            "|---|---|---|---|",
        ]
    for rule, members in by_rule.items():
        account = account_of(rule)
        does, reasons = ", ".join(account.does), "; ".join(account.reasons)
        lines.append(f"| {', '.join(members)} | {does} | {account.summary} | {reasons} |")
    lines += ["", "| no rule: pins, because | operator |", "|---|---|"]
    for reason in dict.fromkeys(UNRULED.values()):
        if reason in by_reason:
            why = _NOT_YET if reason == NO_RULE else reason
            lines.append(f"| {why} | {', '.join(by_reason[reason])} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say whether it is so")
    args = parser.parse_args()
    lacking = missing(operators())
    if lacking:
        print(f"neither a rule nor a reason: {', '.join(lacking)}", file=sys.stderr)
        return 1
    if not args.check:
        PAGE.write_text(page())
        needless = sorted(name for _, name in RULES.keys() & UNRULED.keys())
        if needless:
            print(f"they have rules, and need no reason: {', '.join(needless)}", file=sys.stderr)
        return 0
    if PAGE.read_text() != page():
        print(f"{PAGE.name} is not what `python tools/operators.py` makes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The ways to make a module smaller, from the smallest on, until one computes what it should.

1. Layers that torch computes by other means than a convolution or a linear layer keep all their
   channels, and so do layers that would have to be different things at once, as they, or the
   normalization behind them, are shared.
2. A `forward` that counts channels (a chunk, a view of fixed sizes) may fail where some left. Then
   what it counts stays: in the class of the module that failed, the innermost one that counts.
3. If that is not enough, all that is counted anywhere stays.
4. What then still differs is another model: the error names the layers that were not found.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
from torch import nn

from onnx_upscale.errors import UsageError
from onnx_upscale.exporter.copying import copy_of, make_pruning_permanent
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.plan.plain import plain_plan
from onnx_upscale.torch.comparison import Comparison, Failure
from onnx_upscale.torch.fitting import count_channels, fit
from onnx_upscale.torch.matching import Match, match
from onnx_upscale.torch.same import check_same
from onnx_upscale.torch.seen import Seen
from onnx_upscale.torch.values import Values, new_values


def slimmed(module: nn.Module, plan: Plan, comparison: Comparison) -> nn.Module:
    """Makes a module smaller.

    Args:
        module: The module that was exported.
        plan: How its model was planned.
        comparison: What it must compute.

    Returns:
        The smaller module.

    Raises:
        UsageError: None computes that.
    """
    whole = copy_of(module)
    trained = _trained(whole)
    make_pruning_permanent(whole)
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    seen = comparison.watch(whole)
    matched = match(whole, plan.analysis.graph, seen)
    check_same(whole, matched)
    made = _first_good(whole, plan, matched, seen, comparison)
    count_channels(made, comparison.watch(made))
    return _as_it_was(made, getattr(module, "_orig_mod", module))


def _first_good(
    whole: nn.Module, plan: Plan, matched: Match, seen: Seen, comparison: Comparison
) -> nn.Module:
    structure = plan.analysis.structure
    carried = {layer.node.index for layers in matched.layers.values() for layer in layers}
    stays = {index for index in structure.layers if index not in carried}
    stays.update(_sharing_norms(matched))
    copying = set(_copying(matched, seen))
    while True:
        plain = plain_plan(plan, _roots_at(structure, stays), copying)
        values = new_values(matched, plain, apply(plain).model)
        torn = {index for uses in values.torn.values() for index, _ in uses} - stays
        if torn:
            stays |= torn
            continue
        made = copy.deepcopy(whole)
        fit(made, matched, values)
        failure = comparison.failure(made)
        if failure is None:
            return made
        more = _counting(structure, matched, whole, failure, stays)
        if not more:
            raise _cannot(whole, matched, values, failure)
        stays |= more


def _sharing_norms(matched: Match) -> Iterator[int]:
    """The layers into which a normalization was folded that is not theirs alone."""
    for name, norm in matched.norms.items():
        if norm.folded and not norm.apart:
            yield from (layer.node.index for layer in matched.layers[name])


def _copying(matched: Match, seen: Seen) -> Iterator[int]:
    """The readers before which a copy can stand: those whose weight one module holds alone."""
    for name, layers in matched.layers.items():
        if len(matched.owners[name]) == 1 and matched.path(name) not in seen.named:
            yield from (layer.node.index for layer in layers)


def _roots_at(structure: Structure, nodes: Iterable[int]) -> IntArray:
    """All channels of what some nodes read and make."""
    found = [np.zeros(0, np.int64)]
    for index in nodes:
        node = structure.graph.nodes[index]
        for tensor in (*node.inputs, *node.outputs):
            found += [structure.roots[labels] for labels in structure.axes.get(tensor, {}).values()]
    return np.unique(np.concatenate(found))


def _counting(
    structure: Structure, matched: Match, module: nn.Module, failure: Failure, stays: set[int]
) -> set[int]:
    """The nodes that count channels, where the module that failed may be to blame for them."""
    all_of_them = {
        facts.node.index
        for facts in structure.facts
        if _counts(facts) and facts.node.index not in structure.layers
    } - stays
    parts = dict(module.named_modules())
    for path in reversed(failure.paths):
        kind = type(parts[path])
        alike = {
            index
            for index in all_of_them
            if type(parts[matched.scopes[index]]) is kind  # The same code counts in all of them.
        }
        if any(matched.scopes[index] == path for index in alike):
            return alike
    return all_of_them


def _counts(facts: Facts) -> bool:
    return bool(facts.rewrites) or facts.concatenation is not None


def _cannot(module: nn.Module, matched: Match, values: Values, failure: Failure) -> UsageError:
    torn = next(iter(values.torn), None)
    if torn is not None:
        return UsageError(
            f"layer '{matched.path(torn)}' has one weight, and the result several in its place: "
            "prune alike wherever it is called"
        )
    if matched.lost:
        names = ", ".join(f"'{name}'" for name in matched.lost)
        one = len(matched.lost) == 1
        return UsageError(
            f"layer{'' if one else 's'} {names} of the module cannot be found again in the "
            f"exported model ({failure.reason}): leave what {'it reads' if one else 'they read'} "
            "unpruned"
        )
    where = ""
    if failure.paths:
        path = failure.paths[-1]
        kind = type(dict(module.named_modules())[path]).__name__
        where = f"at layer '{path}' ({kind}), " if path else f"in {kind}, "
    return UsageError(
        f"{where}the module does not compute what the result computes: {failure.reason}; it must "
        "be the module that was exported, unchanged, and its layers must not count channels"
    )


def _trained(module: nn.Module) -> dict[str, bool]:
    """Which parameters are to be trained; those under a pruning hook by the name that they had."""
    return {
        name.removesuffix("_orig"): parameter.requires_grad
        for name, parameter in module.named_parameters()
    }


def _as_it_was(made: nn.Module, module: nn.Module) -> nn.Module:
    """The device and the mode of the original."""
    modes = {path: part.training for path, part in module.named_modules()}
    for path, part in made.named_modules():
        part.training = modes.get(path, module.training)
    devices = {parameter.device for parameter in module.parameters()}
    return made.to(devices.pop()) if len(devices) == 1 else made

"""Which masks act where: in the main graph, and in the bodies of If, Loop and Scan.

1. A key that names something in the main graph means that.
2. Otherwise it begins with the path of a body, and the rest names something in there.
3. Who names an initializer means every layer that uses it as its weight, in bodies below as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from onnx_upscale.optimizer.load.bodies import Body, Place, find_bodies
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.masking import LayerMask, Names, mask_graph, resolve_masks
from onnx_upscale.optimizer.load.masks import Mask


@dataclass(frozen=True)
class _Scope:
    place: Place
    path: str
    names: Names

    def within(self, key: str) -> str | None:
        """What a key names here, or None where it names nothing."""
        inside = key.startswith(self.path)
        name = key.removeprefix(self.path)
        return name if inside and self.names.knows(name) else None

    def is_in(self, other: _Scope) -> bool:
        """Whether it is another scope, or below it."""
        return self.place[: len(other.place)] == other.place


def lay_masks(
    graph: Graph, masks: Iterable[Mask]
) -> tuple[Graph, tuple[LayerMask, ...], tuple[Body, ...]]:
    """Lays masks over a graph and its bodies.

    Args:
        graph: The main graph, without masks.
        masks: Masks as read from a file.

    Returns:
        The graph seen through its own masks, these, and the bodies with layers, seen through
        theirs.

    Raises:
        MaskError: A key names nothing, or a mask does not fit what it names.
    """
    bodies = tuple(find_bodies(graph))
    scopes = [_Scope((), "", Names(graph))]
    scopes += [_Scope(body.place, f"{body.path}/", Names(body.graph)) for body in bodies]
    own: list[list[Mask]] = [[] for _ in scopes]
    for mask in masks:
        for at, name in dict.fromkeys(_meant(scopes, mask.key)):
            own[at].append(replace(mask, name=name))

    def named_in_bodies() -> Iterator[str]:
        for scope in scopes[1:]:
            yield from (scope.path + name for name in scope.names.layers())

    resolved = resolve_masks(graph, own[0], named_in_bodies)
    seen = []
    for body, stated in zip(bodies, own[1:], strict=True):
        inside = resolve_masks(body.graph, stated)
        seen.append(replace(body, graph=mask_graph(body.graph, inside), masks=inside))
    return mask_graph(graph, resolved), resolved, tuple(seen)


def _meant(scopes: Sequence[_Scope], key: str) -> Iterator[tuple[int, str]]:
    """The scopes in which a key means something, and what it is called there."""
    main, *others = scopes
    start = [main] if main.within(key) is not None else others
    found = [(scope, name) for scope in start if (name := scope.within(key)) is not None]
    if not found:
        yield 0, key  # So that somebody says what is wrong with it.
    for scope, name in found:
        if not scope.names.is_weight(name):
            yield scopes.index(scope), name
            continue
        using = [
            at
            for at, each in enumerate(scopes)
            if each.is_in(scope) and each.names.is_weight(name) and each.names.using(name)
        ]
        yield from ((at, name) for at in using or [scopes.index(scope)])

"""One way through a source: statements in the order in which they run, each loop twice."""

import ast
import contextlib
from collections.abc import Sequence

from . import assignments, calls
from .events import Event
from .roles import last, operand
from .slips import Slip, slip
from .source import Source
from .tags import CUT, LIVE, together

LONGEST = 5_000  # statements on one way; on all of them together four times as many


class Leave(Exception):  # noqa: N818 - control flow, as in the source that is read
    """A return, break or continue in the source."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Path:
    """One way through a source: what happens on it, in order.

    Attributes:
        events: The events.
        slips: Slips in the values that flow along: a softmax into a cross_entropy, a loss that is a number.
        lines: The lines that it goes through.
        tags: What is known of each name now: "output", "loss", "softmax", "detached", ...
        where: In which line a tag was given last.
    """

    def __init__(self, source: Source, choices: dict[str, bool]) -> None:
        self.source, self.choices, self.count = source, choices, 0
        self.roles, self.functions = source.roles.copy(), dict(source.functions)
        self.asked: dict[str, None] = {}
        self.events: list[Event] = []
        self.slips: list[Slip] = []
        self.lines: set[int] = set()
        self.tags: dict[str, frozenset[str]] = {}
        self.where: dict[str, int] = {}
        self.sums: dict[str, Slip] = {}  # totals that would keep graphs, unless backward is called on them
        # name: what it was made of, how often it was used
        self.generators: dict[str, tuple[str, int]] = dict(source.generators)
        self.loops: tuple[int, ...] = ()
        self.guards: tuple[ast.expr, ...] = ()
        self.meaning: dict[str, ast.expr] = {}  # what a name was set to last
        self.over: dict[int, ast.expr] = {}  # the line of a loop: what it goes over
        self.windows: dict[int, tuple[ast.expr, int]] = {}  # the line of a step: the guard that makes it rare
        self.schedulers: dict[str, str] = {}  # name: how it was made
        self.kept: dict[int, str] = {}  # the line of a backward that keeps the graph: its loss
        self.rare: dict[int, tuple[ast.expr, ...]] = {}  # the line of a backward: the guards around it
        self.divided: set[int] = set()  # the lines of backwards of a loss that was divided
        self.grad, self.autocast = True, False
        self.names: dict[str, str] = {}  # inside a called function: its parameters, as the caller calls them
        self.inside: tuple[str, ...] = ()
        self.returned: frozenset[str] = frozenset()
        self.statement: ast.stmt | None = None

    # what statements do

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Go through statements."""
        for statement in statements:
            self.count += 1
            if self.count > LONGEST:
                raise Leave("enough")
            outer, self.statement = self.statement, statement
            self.lines.add(statement.lineno)
            getattr(self, f"_{type(statement).__name__}", self._other)(statement)
            self.statement = outer

    def body(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
        """Go through the body of a function, and return what is known of what it returns."""
        grad, self.returned = self.grad, frozenset()
        loops = self.loops
        for decorator in function.decorator_list:
            if last(decorator.func if isinstance(decorator, ast.Call) else decorator) in _NO_GRAD:
                self.grad = False
        with contextlib.suppress(Leave):
            self.run(function.body)
        self.grad, self.loops = grad, loops
        return self.returned

    def _other(self, node: ast.stmt) -> None:
        self.value(node)

    def _FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: N802 - named by the class of the node
        """Its body runs where it is called; two may have one name, and the later one is meant."""
        self.functions[node.name] = node

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.stmt) -> None:  # noqa: N802
        """Its methods run where they are called."""

    _Import = _ImportFrom = _Global = _Nonlocal = _Pass = _ClassDef

    def _Expr(self, node: ast.Expr) -> None:  # noqa: N802
        if isinstance(node.value, ast.Attribute) and node.value.attr in calls.METHODS:
            self.say("not called", name=ast.unparse(node.value))
            self.value(ast.copy_location(ast.Call(node.value, [], []), node))  # as it was meant
        self.value(node.value)

    def _Return(self, node: ast.Return) -> None:  # noqa: N802
        self.returned = self.value(node.value) if node.value else frozenset()
        raise Leave("return")

    def _Continue(self, node: ast.stmt) -> None:  # noqa: N802
        raise Leave("continue")

    def _Break(self, node: ast.stmt) -> None:  # noqa: N802
        raise Leave("break")

    def _For(self, node: ast.For | ast.AsyncFor) -> None:  # noqa: N802
        self.value(node.iter)
        self._use(node.iter)
        self.over[node.lineno] = node.iter
        for target in ast.walk(node.target):
            if isinstance(target, ast.Name):
                self.tags[target.id] = frozenset()
        self._loop(node)
        self.run(node.orelse)

    _AsyncFor = _For

    def _While(self, node: ast.While) -> None:  # noqa: N802
        self.value(node.test)
        self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        outer, self.loops = self.loops, (*self.loops, node.lineno)
        try:
            for _ in range(2):
                try:
                    self.run(node.body)
                except Leave as leave:
                    if leave.kind in ("return", "enough"):
                        raise
        finally:
            self.loops = outer

    def _If(self, node: ast.If) -> None:  # noqa: N802
        self.value(node.test)
        if not (self.source.matters(node) or _leaves(node)):
            self._both(node)
            return
        outer, self.guards = self.guards, (*self.guards, node.test)
        try:
            self.run(node.body if self.choose(node.test) else node.orelse)
        finally:
            self.guards = outer

    def _both(self, node: ast.If) -> None:
        if any(isinstance(part, ast.Break | ast.Continue | ast.Return) for part in ast.walk(node)):
            return
        for part in (node.body, node.orelse):
            self.run(part)

    def _Try(self, node: ast.Try) -> None:  # noqa: N802
        for part in (node.body, node.orelse, node.finalbody):
            self.run(part)

    _TryStar = _Try

    def _Match(self, node: ast.Match) -> None:  # noqa: N802
        for number, case in enumerate(node.cases):
            if self.choose(ast.parse(f"case_{node.lineno}_{number}", mode="eval").body):
                self.run(case.body)
                return

    def _With(self, node: ast.With | ast.AsyncWith) -> None:  # noqa: N802
        grad, autocast = self.grad, self.autocast
        for item in node.items:
            self._enter(item.context_expr)
        try:
            self.run(node.body)
        finally:
            self.grad, self.autocast = grad, autocast

    _AsyncWith = _With

    def _enter(self, context: ast.expr) -> None:
        word = last(context.func) if isinstance(context, ast.Call) else last(context)
        if word in _NO_GRAD:
            self.grad = False
        elif word == "enable_grad":
            self.grad = True
        elif word == "set_grad_enabled" and isinstance(context, ast.Call) and context.args:
            self.grad = self.choose(context.args[0])
        elif any(part in word for part in ("evaluating", "inference", "no_grad")):  # somebody's own
            self.grad = False
        elif word == "autocast":
            self.autocast = True
        else:
            self.value(context)

    def _Assign(self, node: ast.Assign) -> None:  # noqa: N802
        target = node.targets[0]
        if isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add | ast.Div):
            side = node.value
            if ast.unparse(side.left) == ast.unparse(target):
                self._add(target, side.op, side.right)
                return
            if isinstance(side.op, ast.Add) and _is_share(side.left, target):  # a running mean
                left = ast.unparse(side.left)
                self._add(target, side.op, side.right, f"{left} + {operand(side.right)}.item()")
                return
        tags = self.value(node.value)
        for target in node.targets:
            self._set(target, node.value, tags)

    def _AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if node.value:
            self._set(node.target, node.value, self.value(node.value))

    def _AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        self._add(node.target, node.op, node.value)

    def _add(self, target: ast.expr, op: ast.operator, value: ast.expr, mean: str = "") -> None:
        """Add to a name: a total of losses that keep their graphs, or a loss that gets one more part."""
        tags, name = self.value(value), self.text(target)
        if any(isinstance(part, ast.Attribute) and part.attr == "grad" for part in ast.walk(value)):
            self.event("step", of="by hand")
        before = self.tags.get(name, frozenset())
        graph = tags & LIVE and not tags & CUT and self.grad
        if isinstance(op, ast.Add) and graph and "loss" not in before and self.loops:
            total = f"{name} = {mean}" if mean else f"{name} += {operand(value)}.item()"
            self.sums.setdefault(name, self.made("total keeps graphs", total=total))
            self.tags[name] = frozenset({"sum", *tags})
            return
        self.tags[name] = self._mix(before, tags, op)

    def _set(self, target: ast.expr, value: ast.expr, tags: frozenset[str]) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
            picks = isinstance(value, ast.Call) and last(value.func) in ("max", "min", "topk", "sort")
            if picks and ast.unparse(target.elts[0]) == "_":  # only the places are asked for
                calls.judged(self, tags)
            for number, part in enumerate(target.elts):
                tags = frozenset() if picks and number else tags  # the places of the largest have no graph
                self._set(
                    part, values[number] if values else value, self._known(values[number]) if values else tags
                )
            return
        name = self.text(target)
        if isinstance(target, ast.Subscript) and "environ" in name:
            assignments.environment(self, target.slice, value)
        if isinstance(target, ast.Attribute) and target.attr == "grad":
            self.event("zero_grad", of=None, model=True)
        elif isinstance(target, ast.Attribute):
            assignments.head(self, target, value)
        self.generators.pop(name, None)
        self.meaning[name] = value
        if name not in self.sums or "sum" not in tags:
            self.tags[name] = tags
        assignments.made(self, name, value)

    def _known(self, node: ast.expr) -> frozenset[str]:
        return self.tags.get(self.text(node), frozenset())

    # what expressions are

    def value(self, node: ast.AST | None) -> frozenset[str]:
        """Go through an expression as it is evaluated, and return what is known of its value."""
        if node is None or isinstance(node, ast.Lambda | ast.Constant):
            return frozenset()
        if isinstance(node, ast.Call):
            return calls.call(self, node)
        if isinstance(node, ast.Compare):  # what is compared has no graph
            for part in (node.left, *node.comparators):
                self.value(part)
            return frozenset()
        if isinstance(node, ast.Name):
            return self.tags.get(self.names.get(node.id, node.id), frozenset())
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.BinOp):
            return self._mix(self.value(node.left), self.value(node.right), node.op)
        return self._several(node)

    def _several(self, node: ast.AST) -> frozenset[str]:
        inside = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr_context)]
        parts = [self.value(part) for part in inside]
        if isinstance(node, ast.IfExp):
            return together(parts[1:])
        if isinstance(node, ast.Dict):
            return together(parts[-len(node.values) :])
        return together(parts) if isinstance(node, ast.Tuple | ast.List) else frozenset().union(*parts)

    def _attribute(self, node: ast.Attribute) -> frozenset[str]:
        name = self.text(node)
        if name in self.tags:
            return self.tags[name]
        tags = self.value(node.value)
        if node.attr == "data" and tags & LIVE:
            return self.tag(tags, "detached")
        return frozenset() if node.attr in ("shape", "device", "dtype", "grad") else tags

    def _mix(self, one: frozenset[str], other: frozenset[str], op: ast.operator) -> frozenset[str]:
        """Return what is known of a sum or a product: it has a way back if one of its parts has one."""
        live = [tags for tags in (one, other) if tags & LIVE]
        if isinstance(op, ast.MatMult):
            live = [one, other]  # the other one may be a parameter
        cut = {tag for tag in CUT if live and all(tag in tags for tags in live)}
        known = bool(live) or not (one or other)  # of what an unknown function gives nothing is known
        divided = {"divided"} if isinstance(op, ast.Div | ast.Mult) and known else set()
        return frozenset(((one | other) - CUT - {"softmax", "log_softmax", "sigmoid"}) | cut | divided)

    def tag(self, tags: frozenset[str], *more: str) -> frozenset[str]:
        """Return the tags with more, and remember the line."""
        for tag in more:
            self.where[tag] = self.line
        return tags | set(more)

    # what is written down

    @property
    def line(self) -> int:
        """The line of the statement."""
        return self.statement.lineno if self.statement else 1

    def text(self, node: ast.AST) -> str:
        """Return the name of something, as the caller calls it."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.text(node.value)}.{node.attr}"
        return ast.unparse(node)

    def event(self, kind: str, **facts) -> None:
        """Write down that something happens here."""
        name = facts.pop("name", None) or str(facts.get("of") or "")
        facts = {"grad": self.grad, "autocast": self.autocast, "loops": self.loops} | facts
        self.events.append(Event(kind, self.line, name=name, **facts))

    def made(self, kind: str, line: int | None = None, **names: object) -> Slip:
        """Return a slip in this line."""
        return slip(kind, line or self.line, **names)

    def say(self, kind: str, line: int | None = None, **names: object) -> None:
        """Write a slip down."""
        self.slips.append(self.made(kind, line, **names))

    def choose(self, test: ast.expr) -> bool:
        """Return the way that this path takes at a condition; the same condition, the same way."""
        key, turned = _condition(test)
        key = self.names.get(key, key)
        if key in _SURE:
            return _SURE[key] is not turned
        self.asked.setdefault(key)
        return self.choices.get(key, True) is not turned

    def _use(self, node: ast.expr) -> None:
        """Count the use of a generator of parameters."""
        name = self.text(node)
        if name in self.generators:
            made, used = self.generators[name]
            self.generators[name] = (made, used + 1)
            if used:
                self.say("exhausted generator", name=name, given=made)

    use = _use


_NO_GRAD = ("no_grad", "inference_mode")
_SURE = {"True": True, "False": False, "__name__ == '__main__'": True}


def _condition(test: ast.expr) -> tuple[str, bool]:
    """Return a condition as text, and whether it is turned round: `x is None` is `x`, turned."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        key, turned = _condition(test.operand)
        return key, not turned
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and ast.unparse(test.comparators[0]) == "None":
        return ast.unparse(test.left), isinstance(test.ops[0], ast.Is | ast.Eq)
    return ast.unparse(test), False


def _is_share(part: ast.expr, target: ast.expr) -> bool:
    """Say whether a part of a sum is `0.9 * target`."""
    factors = (part.left, part.right) if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult) else ()
    return ast.unparse(target) in map(ast.unparse, factors)


def _leaves(node: ast.If) -> bool:
    return any(isinstance(part, ast.Return | ast.Continue) for part in node.body)

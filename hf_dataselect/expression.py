"""[`Expression`]: a condition on named columns, as `ifd > 0.3 and tokens < 800`; parsed, never run as code."""

import ast
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np


#: Longest text of an expression, and the deepest nesting.
LONGEST, DEEPEST = 2000, 50


def _quotient(left: Any, right: Any) -> Any:
    """1 / 0 is infinite; of two plain numbers a plain number."""
    quotient = np.divide(left, right)
    return quotient if quotient.ndim else float(quotient)


_COMPARED: dict[type, Callable] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_COMPUTED: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _quotient,
}


class Expression:
    """
    A condition: comparisons of columns, numbers and sums, differences, products and quotients of these, joined by
    `and`, `or`, `not`. Nothing else is in the language: no calls, no powers, no texts, no indices.

    Args:
        text (`str`):
            The condition.
        option (`str`):
            What errors call it.

    Raises:
        `ValueError`: it is anything else.
    """

    def __init__(self, text: str, option: str):
        self.text, self.option = text, option
        #: Columns that it names; `a.b` is one name.
        self.names: set[str] = set()
        if len(text) > LONGEST:
            raise ValueError(
                f"`{option}`: an expression of {len(text):,} characters is too long, {LONGEST:,} at most."
            )
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(f"it can't be read ({type(error).__name__})") from error
        self._holds = self._condition(tree, 0)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """
        Rows for which it holds, bool `(n,)`; not where a named column is NaN.

        Args:
            columns (`Mapping`):
                Of each of `names`, the numbers of all rows, `(n,)`.
        """
        with np.errstate(all="ignore"):
            holds = np.asarray(self._holds(columns), bool)
        return holds & np.all([~np.isnan(columns[name]) for name in sorted(self.names)], 0)

    def _refused(self, why: str) -> ValueError:
        allowed = "columns, numbers, + - * /, < <= > >= == !=, and, or, not"
        return ValueError(f"`{self.option}`={self.text[:200]!r}: {why}. It may hold {allowed}, as in 'ifd > 0.3'.")

    def _condition(self, node: Any, depth: int) -> Callable:
        if depth > DEEPEST:
            raise self._refused("it is nested too deeply")
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(part, depth + 1) for part in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return lambda columns: join.reduce([part(columns) for part in parts])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            part = self._condition(node.operand, depth + 1)
            return lambda columns: np.logical_not(part(columns))
        if isinstance(node, ast.Compare):
            if unknown := [kind for kind in node.ops if type(kind) not in _COMPARED]:
                raise self._refused(f"`{type(unknown[0]).__name__}` is not in the language")
            operands = (node.left, *node.comparators)
            sides = [self._number(side, depth + 1) for side in operands]
            named = [any(isinstance(part, ast.Name) for part in ast.walk(side)) for side in operands]
            if not all(map(any, pairwise(named))):
                raise self._refused("a comparison names no column")
            tests = [_COMPARED[type(kind)] for kind in node.ops]

            def compared(columns: Mapping[str, np.ndarray]) -> np.ndarray:
                values = [side(columns) for side in sides]
                pairs = zip(tests, values, values[1:], strict=False)
                return np.logical_and.reduce([test(left, right) for test, left, right in pairs])

            return compared
        raise self._refused("it is no comparison")

    def _number(self, node: Any, depth: int) -> Callable:
        if depth > DEEPEST:
            raise self._refused("it is nested too deeply")
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            # A plain number takes the dtype of the column beside it: scores are float32, where 4.1 is another number.
            if abs(node.value) >= 1e300:
                raise self._refused("a number is too large")
            value = float(node.value)
            return lambda columns: value
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = self._name(node)
            self.names.add(name)
            return lambda columns: _floats(columns[name])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            part, sign = self._number(node.operand, depth + 1), -1.0 if isinstance(node.op, ast.USub) else 1.0
            return lambda columns: sign * part(columns)
        if isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
            sides = [self._number(side, depth + 1) for side in (node.left, node.right)]
            compute = _COMPUTED[type(node.op)]
            return lambda columns: compute(*(side(columns) for side in sides))
        raise self._refused(f"`{type(node).__name__}` is not in the language")

    def _name(self, node: Any) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}"
        raise self._refused(f"`{type(node).__name__}` is not in the language")


def _floats(values: Any) -> np.ndarray:
    """A column as numbers: float32 as it is, anything else as float64."""
    values = np.asarray(values)
    return values if values.dtype == np.float32 else values.astype(np.float64)

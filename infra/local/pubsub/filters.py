"""Subscription filters: attributes:key, attributes.key = "v", !=, hasPrefix(), NOT, AND, OR,
parentheses."""

import re
from collections.abc import Callable, Mapping

Predicate = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_][A-Za-z0-9_-]*)|(?P<mark>!=|[=:().,-]))"""
)


class FilterError(ValueError):
    """The text is not a filter."""


def compile_filter(text: str) -> Predicate:
    """A predicate on a message's attributes; an empty text matches every message.

    Raises:
        FilterError: the text does not follow the grammar, or mixes AND with OR without parentheses.
    """
    if not text.strip():
        return lambda _attributes: True
    parser = _Parser(_tokens(text))
    predicate = parser.expression()
    if parser.tokens:
        raise FilterError(f"unexpected {parser.tokens[0]!r}")
    return predicate


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise FilterError(f"unexpected character at {position}")
        tokens.append(match[0].strip())
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def expression(self) -> Predicate:
        terms, joiner = [self._term()], ""
        while self.tokens and self.tokens[0] in ("AND", "OR"):
            word = self.tokens.pop(0)
            if joiner and word != joiner:
                raise FilterError("AND and OR need parentheses between them")
            joiner = word
            terms.append(self._term())
        if joiner == "OR":
            return lambda attributes: any(term(attributes) for term in terms)
        return lambda attributes: all(term(attributes) for term in terms)

    def _term(self) -> Predicate:
        word = self._next()
        if word in ("NOT", "-"):
            inner = self._term()
            return lambda attributes: not inner(attributes)
        if word == "(":
            inner = self.expression()
            self._expect(")")
            return inner
        if word == "hasPrefix":
            return self._has_prefix()
        if word == "attributes":
            return self._attribute()
        raise FilterError(f"unexpected {word!r}")

    def _has_prefix(self) -> Predicate:
        for mark in ("(", "attributes", "."):
            self._expect(mark)
        key = self._key()
        self._expect(",")
        prefix = self._string(self._next())
        self._expect(")")
        return lambda attributes: key in attributes and attributes[key].startswith(prefix)

    def _attribute(self) -> Predicate:
        mark = self._next()
        key = self._key()
        if mark == ":":
            return lambda attributes: key in attributes
        if mark != ".":
            raise FilterError(f"unexpected {mark!r}")
        operator = self._next()
        value = self._string(self._next())
        if operator == "=":
            return lambda attributes: attributes.get(key) == value
        if operator == "!=":
            return lambda attributes: key in attributes and attributes[key] != value
        raise FilterError(f"unexpected {operator!r}")

    def _key(self) -> str:
        word = self._next()
        return self._string(word) if word.startswith('"') else word

    @staticmethod
    def _string(word: str) -> str:
        if not word.startswith('"'):
            raise FilterError(f"a quoted string belongs where {word!r} is")
        return re.sub(r"\\(.)", r"\1", word[1:-1])

    def _expect(self, wanted: str) -> None:
        word = self._next()
        if word != wanted:
            raise FilterError(f"{wanted!r} belongs where {word!r} is")

    def _next(self) -> str:
        if not self.tokens:
            raise FilterError("it ends too early")
        return self.tokens.pop(0)

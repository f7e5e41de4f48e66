"""Requests and replies of the explorer, and the table of what it answers."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cryohydra.errors import UserError

JSON = "application/json"
BINARY = "application/octet-stream"
LINES = "application/x-ndjson"


class Refusal(Exception):
    """A request is not answered; the status and the sentence say why."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a handler is given: parts of the path by name, the query, and the body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What a handler gives: a body, whole or piece by piece."""

    content_type: str
    body: bytes | Iterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


Handler = Callable[[Request], Reply]


@dataclass(frozen=True)
class Route:
    """What answers a method and a path such as /api/origins/{origin}."""

    method: str
    pattern: str
    handler: Handler
    takes: str = ""
    """Content type of the body; none for requests without one."""
    most_bytes: int = 0


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: list[Route]):
        self._routes = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", one.pattern)), one) for one in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route of a path, and the parts of the path that it names.

        Raises:
            Refusal: If there is none, or not for this method.
        """
        matches = [(route, found.groupdict()) for regex, route in self._routes if (found := regex.fullmatch(path))]
        if not matches:
            raise Refusal(404, "There is no such page; open the address that `drgnai explore` printed.")
        for route, parts in matches:
            if route.method == method:
                return route, parts
        raise Refusal(405, f"This address takes {' or '.join(sorted({r.method for r, _ in matches}))}, not {method}.")


class Asked(BaseModel):
    """The JSON body of a request: nothing more than its fields, and no infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


A = TypeVar("A", bound=Asked)


def read_json(kind: type[A], body: bytes) -> A:
    """A body of JSON, checked.

    Raises:
        Refusal: If it is not what the kind asks for.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(400, f"The request cannot be understood: {where}: {first['msg']}.") from error


def whole_number(query: Mapping[str, str], name: str, least: int, most: int) -> int:
    """A number of the query, within bounds.

    Raises:
        Refusal: If it is missing, no whole number, or out of bounds.
    """
    text = query.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Refusal(400, f"'{name}' is '{text[:20]}'; wanted a whole number from {least} to {most}.")
    return int(text)


def as_json(content: Any) -> Reply:
    """A reply of JSON."""
    return Reply(JSON, json.dumps(content, allow_nan=False).encode())


def as_lines(contents: Iterator[dict[str, Any]]) -> Reply:
    """A reply that is sent line by line, each a JSON object, as the work goes on; the last may be an error."""

    def lines() -> Iterator[bytes]:
        try:
            for content in contents:
                yield json.dumps(content).encode() + b"\n"
        except UserError as error:
            yield json.dumps({"error": str(error)}).encode() + b"\n"

    return Reply(LINES, lines())

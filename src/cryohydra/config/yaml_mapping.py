"""Keys and values of a YAML file."""

from pathlib import Path
from typing import Any

import yaml

from cryohydra.errors import UnreadableFile


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that is set twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise _SetTwice(str(twice))
        return super().construct_mapping(node, deep)


class _SetTwice(Exception):
    """The key that is."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        UnreadableFile: If it is missing, not YAML, or not keys with values.
    """
    try:
        content = yaml.load(path.read_text(), _OnceLoader)  # noqa: S506  (a safe loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); check the path.") from error
    except _SetTwice as error:
        raise UnreadableFile(f"{path} sets '{error}' more than once; remove all lines of it but one.") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" near line {place.line + 1}" if place else ""
        raise UnreadableFile(f"{path} is not valid YAML{where}; each line should read `key: value`.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UnreadableFile(f"{path} holds {type(content).__name__} where lines of `key: value` are wanted.")
    return {str(key): value for key, value in content.items()}

"""Keys and values of a YAML file."""

from pathlib import Path
from typing import Any

import yaml

from cryohydra.errors import UnreadableFile


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        UnreadableFile: If it is missing, not YAML, or not keys with values.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); check the path.") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" near line {place.line + 1}" if place else ""
        raise UnreadableFile(f"{path} is not valid YAML{where}; each line should read `key: value`.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UnreadableFile(f"{path} holds {type(content).__name__} where lines of `key: value` are wanted.")
    return {str(key): value for key, value in content.items()}

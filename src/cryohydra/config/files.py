"""configs.yaml, which users read and edit, and train-configs.yaml, which records what was run."""

import platform
import textwrap
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import cryohydra
from cryohydra.config.catalogue import with_dataset
from cryohydra.config.paths import with_resolved_paths
from cryohydra.config.presets import QuickConfig
from cryohydra.config.reading import Reading, read_settings
from cryohydra.config.sections import SECTIONS, Section
from cryohydra.config.settings import KEYS, Settings, explanation
from cryohydra.config.yaml_mapping import read_mapping
from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically

RECORDED_LIBRARIES = ("torch", "numpy", "scipy", "mrcfile", "gemmi", "pydantic", "scikit-learn")

HEADING = """\
# The settings of this experiment, read by `drgnai train`.
# A line with '#' before its key shows the value in force because you have not set it: its default,
# or what quick_config makes of it. To set it, remove the '#' and write your value.
"""


def read_values(path: Path) -> dict[str, Any]:
    """What the user set in a configs.yaml or train-configs.yaml, paths absolute.

    Relative paths count from the current folder, then from the file's.
    """
    values = read_mapping(path)
    values.pop("versions", None)
    return with_resolved_paths(values, [Path.cwd(), path.absolute().parent])


def read_configs(path: Path) -> Reading:
    """The settings that a configs.yaml asks for.

    Raises:
        UserError: If it is missing or cannot be used, naming every problem.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; make it with `drgnai setup {path.parent} --particles FILE`.")
    return read_settings(with_dataset(read_values(path)), origin=str(path))


def write_configs(path: Path, values: Mapping[str, Any]) -> None:
    """Write what the user set, with every key explained and those not set shown as comments."""
    in_force = read_settings(values).settings
    sections: tuple[type[Section], ...] = (QuickConfigSection, *SECTIONS)
    parts = [HEADING, *(_section_text(section, values, in_force) for section in sections)]
    with write_atomically(path) as temporary:
        temporary.write_text("\n".join(parts))


def write_train_configs(path: Path, settings: Settings) -> None:
    """Write all settings as they are run, defaults filled in, and the versions that run them."""
    record = {key: _plain(getattr(settings, key)) for key in KEYS}
    record["versions"] = {
        "cryohydra": cryohydra.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in RECORDED_LIBRARIES},
    }
    with write_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False))


class QuickConfigSection(Section):
    """Shortcuts"""

    quick_config: QuickConfig | None = None


def _section_text(section: type[Section], values: Mapping[str, Any], in_force: Settings) -> str:
    title = (section.__doc__ or "").strip()
    lines = [f"# ---- {title} ----", ""]
    for key in section.model_fields:
        lines += [f"# {line}" for line in _explain(key)]
        text = yaml.safe_dump({key: _plain(values.get(key, getattr(in_force, key)))}, sort_keys=False).rstrip()
        lines += [line if key in values else f"# {line}" for line in text.splitlines()]
        lines.append("")
    return "\n".join(lines)


def _explain(key: str) -> list[str]:
    if key != "quick_config":
        return textwrap.wrap(explanation(key), 110)
    fields = QuickConfig.model_fields.items()
    return [explanation(key), *(f"  {name}: {' '.join((field.description or '').split())}" for name, field in fields)]


def _plain(value: Any) -> Any:
    """The value in YAML's own types."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_none=True)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return dict(value) if isinstance(value, Mapping) else value

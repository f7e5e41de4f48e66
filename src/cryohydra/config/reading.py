"""From what a user wrote to settings: checked once, all problems told together."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cryohydra.config.presets import QuickConfig, settings_of_preset
from cryohydra.config.rules import RULES
from cryohydra.config.sections import INERT, RETIRED
from cryohydra.config.settings import KEYS, Settings, explanation
from cryohydra.errors import UnknownSetting, UserError


@dataclass(frozen=True)
class Reading:
    """Settings made from what the user wrote."""

    settings: Settings
    notes: tuple[str, ...]
    """Sentences for the user about keys without effect."""


_MANY_CLASSES = 12
"""Where `n_classes: auto` starts."""
KEY_DEFAULTS = {key: field.default for key, field in Settings.model_fields.items()}
QUICK_KEYS = tuple(QuickConfig.model_fields)


def read_settings(values: Mapping[str, Any], origin: str = "The settings") -> Reading:
    """Settings from the keys a user has set, with presets and implications filled in.

    Args:
        values: What the user set, by key; everything else takes its preset or default.
        origin: Where they came from, to begin an error message.

    Raises:
        UnknownSetting: If a key does not exist; it tells all other problems too.
        UserError: If values cannot be used, naming every problem.
    """
    notes = tuple(f"{RETIRED[key]} It is accepted and ignored." for key in values if key in RETIRED)
    given = {key: value for key, value in values.items() if key not in RETIRED}
    unknown = [key for key in given if key not in KEYS]
    problems = [_unknown_sentence(f"'{key}'", key, KEYS) for key in unknown]
    given = {key: _none_if_written(value) for key, value in given.items() if key in KEYS}

    quick, quick_problems = _read_quick_config(given.get("quick_config"))
    problems += quick_problems
    given["quick_config"] = quick
    filled = _with_implications(settings_of_preset(quick or QuickConfig()) | given)

    settings, broken = _construct(filled, problems)
    problems += [rule.sentence for rule in RULES if not broken & set(rule.keys) and rule.is_broken(settings)]
    if problems:
        kind = UnknownSetting if unknown or any(p.startswith("Unknown") for p in quick_problems) else UserError
        raise kind(_tell(problems, origin))
    return Reading(settings, notes + tuple(_inert(given, settings)) + tuple(_ineffective(settings)))


def _read_quick_config(value: Any) -> tuple[QuickConfig | None, list[str]]:
    if value is None or isinstance(value, QuickConfig):
        return value, []
    if not isinstance(value, Mapping):
        wanted = "wants shortcuts such as {capture_setup: spa, reconstruction_type: het}"
        return None, [f"'quick_config' is {value!r} but {wanted}."]
    problems = [
        _unknown_sentence(f"'{key}' in quick_config", str(key), QUICK_KEYS) for key in value if key not in QUICK_KEYS
    ]
    known = {key: _none_if_written(entry) for key, entry in value.items() if key in QUICK_KEYS}
    try:
        return QuickConfig(**known), problems
    except ValidationError as error:
        return None, problems + [_sentence([detail], "quick_config.") for detail in error.errors()]


def _with_implications(values: dict[str, Any]) -> dict[str, Any]:
    """The values with those filled in that follow from others whatever the user says."""

    def is_on(key: str) -> bool:
        return str(values.get(key)).lower() in {"true", "1", "yes", "on"}

    implied: dict[str, Any] = {}
    if is_on("use_gt_poses"):
        implied |= {"use_gt_trans": True, "n_imgs_pose_search": 0}
    if is_on("refine_gt_poses"):
        implied |= {"n_imgs_pose_search": 0}
    if str(values.get("n_classes")).strip().lower() == "auto":
        implied |= {"n_classes": _MANY_CLASSES, "prune_classes": True}
    if is_on("no_trans"):
        implied |= {"t_extent": 0.0}
    if is_on("explicit_volume"):
        implied |= {"field": "voxel"}
    elif values.get("field") == "voxel":
        implied |= {"explicit_volume": True}
    return values | implied


def _construct(values: dict[str, Any], problems: list[str]) -> tuple[Settings, set[str]]:
    """Settings from the usable values, and the keys of the others, whose problems are added."""
    broken: set[str] = set()
    for key, value in values.items():
        # Without this `n_classes: yes` would be one class.
        if isinstance(value, bool) and not _takes_bool(key):
            problems.append(f"'{key}' is {str(value).lower()} but wants a number or a name; {_help(key)}")
            broken.add(key)
    try:
        return Settings(**{key: value for key, value in values.items() if key not in broken}), broken
    except ValidationError as error:
        found: dict[str, list[ErrorDetails]] = {}
        for detail in error.errors():
            found.setdefault(str(detail["loc"][0]), []).append(detail)
    problems += [f"{_sentence(details)}; {_help(key)}" for key, details in found.items()]
    broken |= found.keys()
    return Settings(**{key: value for key, value in values.items() if key not in broken}), broken


def _takes_bool(key: str) -> bool:
    return "bool" in str(Settings.model_fields[key].annotation)


def _sentence(details: list[ErrorDetails], prefix: str = "") -> str:
    """What came for one key and what it may be, of the problems that pydantic found with it."""
    wanted = dict.fromkeys(_wanted(detail["msg"]) for detail in details)
    return f"'{prefix}{details[0]['loc'][0]}' is {details[0]['input']!r} but wants {' or '.join(wanted)}"


def _wanted(message: str) -> str:
    kind = message.removeprefix("Input should be ").split(",")[0]
    return f"a number {kind}" if kind.startswith(("greater", "less")) else kind


def _help(key: str) -> str:
    return f"it means: {explanation(key)}"


def _unknown_sentence(shown: str, key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"Unknown setting {shown}." + (f" Did you mean '{close[0]}'?" if close else "")


def _none_if_written(value: Any) -> Any:
    """None where the user wrote the word."""
    return None if isinstance(value, str) and value.strip() in {"None", "null", "~"} else value


def _tell(problems: list[str], origin: str) -> str:
    if len(problems) == 1:
        return f"{origin}: {problems[0]}"
    return "\n".join([f"{origin}: {len(problems)} problems.", *(f"  - {problem}" for problem in problems)])


def _inert(given: Mapping[str, Any], settings: Settings) -> list[str]:
    """Sentences on keys that the user set to something that nothing listens to."""
    set_by_user = [key for key in INERT if key in given and getattr(settings, key) != KEY_DEFAULTS[key]]
    return [f"'{key}' has no effect: {INERT[key]}." for key in set_by_user]


def _ineffective(settings: Settings) -> list[str]:
    """Sentences on keys that were set, here to no effect."""
    changed = settings.model_fields_set
    quick = settings.quick_config or QuickConfig()
    notes = []
    if settings.z_dim == 0 and quick.conf_estimation not in {None, "autodecoder"}:
        notes.append(f"conf_estimation '{quick.conf_estimation}' has no effect: the classes are rigid (z_dim 0).")
    if "beta_conf" in changed and settings.beta_conf > 0 and not settings.variational_het:
        notes.append("beta_conf has no effect without variational_het.")
    if "lr_score_table" in changed and settings.class_weights == "posterior":
        notes.append("lr_score_table has no effect unless class_weights is learned.")
    return notes

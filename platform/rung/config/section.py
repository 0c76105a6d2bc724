"""The base of every config section, and the field helper that makes meaning and unit part of the declaration."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


class Section(BaseModel):
    """A frozen group of settings. Unknown keys and values of the wrong type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(default: Any, meaning: str, *, unit: str | None = None, **bounds: Any) -> Any:
    """Declare one setting; `...` as default makes it required.

    Args:
        default: the value used when the key is absent.
        meaning: one sentence for `--help`.
        unit: physical or counting unit, shown in `--help` and in errors.
        bounds: pydantic's constraints (`ge`, `gt`, `le`, `lt`, `min_length`, ...).
    """
    extra: JsonDict | None = {"unit": unit} if unit else None
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)

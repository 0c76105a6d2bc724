"""The one config tree: frozen pydantic sections, strict YAML, dotted overrides, help made from the declarations."""

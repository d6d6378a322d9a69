"""The base of every model in the API: camelCase outside, snake_case inside, typos refused."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Frozen, strict about unknown keys, camelCase by alias."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, ser_json_inf_nan="null"
    )

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types, camelCase, without what was left unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

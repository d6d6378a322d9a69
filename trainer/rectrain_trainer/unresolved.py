"""The run plan of a model that a config of PaddleOCR describes: the config is read, and the plan resolved.

Called by the run, before it looks at its place: its hash is that of the resolved plan. The operator reads
neither S3 nor ConfigMaps, so the config's text comes with the pod's environment, or lies in S3.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import ConfigText, DeferredPlan, Plan, RunPlan
from rectrain_api.spec import ConfigSpec
from rectrain_api.upstream_config.text import MOST_BYTES
from rectrain_data.transfer import Store

log = logging.getLogger(__name__)

MODEL_CONFIG: Final = "RECTRAIN_MODEL_CONFIG"
"""The text of the ConfigMap's key."""


def resolved(
    written: Plan, open_store: Callable[[str], Store], env: Mapping[str, str] | None = None
) -> RunPlan:
    """The plan that is trained by. The log says what it was made of.

    Raises:
        InputMissing: the config isn't there.
        InvalidSpec: it can't be trained.
    """
    plan = written if isinstance(written, RunPlan) else _read(written, open_store, env or os.environ)
    _tell(plan)
    return plan


def _read(written: DeferredPlan, open_store: Callable[[str], Store], env: Mapping[str, str]) -> RunPlan:
    config = written.deferred.spec.model.config
    assert config is not None
    return written.resolve(_text_of(config, open_store, env))


def _text_of(config: ConfigSpec, open_store: Callable[[str], Store], env: Mapping[str, str]) -> ConfigText:
    if config.config_map is not None:
        name = describe(config)
        text = env.get(MODEL_CONFIG)
        if text is None:
            raise InputMissing(f"{name} isn't here ({MODEL_CONFIG} isn't set): only a cluster has it.")
        return ConfigText(text, name)
    assert config.uri is not None
    return ConfigText(_fetch(config.uri, open_store), config.uri)


def describe(config: ConfigSpec) -> str:
    """How messages name it."""
    if config.config_map is not None:
        return f"ConfigMap {config.config_map.name}, key {config.config_map.key}"
    return str(config.uri)


def _fetch(uri: str, open_store: Callable[[str], Store]) -> str:
    parent, _, name = uri.rpartition("/")
    if not name or parent == "s3:/":
        raise InvalidSpec(
            f"model.config.uri: {uri} isn't a file: name the config itself, as s3://bucket/x.yml."
        )
    store = open_store(parent)
    there = store.head(name)
    if there is None:
        raise InputMissing(f"The config {uri} isn't there: upload it, or correct model.config.uri.")
    if there.size > MOST_BYTES:
        raise InvalidSpec(f"{uri} has {there.size} bytes: a config of PaddleOCR may have {MOST_BYTES}.")
    content = store.get(name)
    if content is None:
        raise InputMissing(f"The config {uri} was removed while it was read.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise InvalidSpec(f"{uri} isn't UTF-8 text.") from wrong


def _tell(plan: RunPlan) -> None:
    """What the model is of, and what of a config decides nothing."""
    origin = plan.model.origin
    if origin is None:
        return
    log.info(
        "The model is that of %s (sha256 %s): %s, %d epochs, batches of %d.",
        origin.source,
        origin.sha256[:12],
        plan.model.preset,
        plan.training.epochs,
        plan.training.batch_size,
    )
    if origin.notes:
        log.info("Of it: %s.", "; ".join(origin.notes))

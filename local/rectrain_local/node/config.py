"""What the agent is told at its start: JSON that `rectrain-local` writes and `__main__` reads."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Environment(BaseModel):
    """A part of the host that stands for a container image: paths bound read-only at their own place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read_only_paths: list[str] = Field(default_factory=list, description="Absolute host paths, beside /usr.")
    path: str = Field(default="/usr/local/bin:/usr/bin:/bin", description="PATH in the container.")
    env: dict[str, str] = Field(default_factory=dict, description="The image's own environment variables.")


class NodeConfig(BaseModel):
    """One process node. Files are PEM; the node's own certificate names it system:node:NAME."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=63)
    server: str = Field(description="URL of the API server, as containers reach it too.")
    ca_file: Path
    client_cert_file: Path
    client_key_file: Path
    serving_cert_file: Path
    serving_key_file: Path
    kubelet_client_ca_file: Path
    kubelet_client_name: str = Field(description="Common name of the only client that may read logs.")
    reader_kubeconfig: Path = Field(description="Identity that may list and watch all pods and services.")
    state_dir: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(default=0, ge=0, le=65535, description="0 takes a free port.")
    capacity: dict[str, str] = Field(
        default_factory=dict, description="Node capacity; cpu, memory, pods, ephemeral-storage have defaults."
    )
    labels: dict[str, str] = Field(default_factory=dict)
    environments: dict[str, Environment] = Field(
        description="Image name pattern (fnmatch) to environment; the first match counts."
    )
    bwrap: str = Field(default="bwrap", description="The bubblewrap program.")
    ready_file: Path | None = Field(default=None, description="Created once the Node is Ready.")

    @model_validator(mode="after")
    def _environments_hide_the_state(self) -> NodeConfig:
        state = self.state_dir.absolute()
        for pattern, environment in self.environments.items():
            for entry in environment.read_only_paths:
                path = Path(entry)
                if not path.is_absolute():
                    raise ValueError(f"environment {pattern!r}: {entry!r} is not an absolute path")
                if state.is_relative_to(path):
                    raise ValueError(
                        f"environment {pattern!r}: {entry!r} holds the node's state directory {state}; "
                        "name narrower paths"
                    )
        return self

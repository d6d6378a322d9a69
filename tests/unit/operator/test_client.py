"""What of this machine's settings reaches the API client, and what must not."""

from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from rectrain_operator.client import KubeClient, load_configuration, proxy_of
from rectrain_operator.limits import WriteLimits


def kubeconfig_of(server: str, folder: Path) -> Path:
    """Signs in by a token."""
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": server}}],
                "users": [{"name": "x", "user": {"token": "ours"}}],
            }
        )
    )
    return path


async def test_a_password_in_netrc_does_not_shut_out_our_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(request: web.Request) -> web.Response:
        return web.json_response({"authorization": request.headers["Authorization"]})

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    app = web.Application()
    app.router.add_get("/", say)
    async with TestServer(app) as server:
        configuration = await load_configuration(kubeconfig_of(f"http://127.0.0.1:{server.port}", tmp_path))
        client = KubeClient(configuration, WriteLimits(lambda: 0.0))
        try:
            assert await client.get("/") == {"authorization": "Bearer ours"}
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("https://api.example:6443", "http://proxy.example:3128"),
        ("https://inside.corp:6443", None),
        ("http://api.example", None),
    ],
)
def test_the_environments_proxy(server: str, found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", ".corp")
    assert proxy_of(server) == found

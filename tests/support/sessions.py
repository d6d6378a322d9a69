"""Keys that expire: a server that hands out sessions, as a cloud does in its pods, and a check of them.

SeaweedFS takes no session tokens. So the keys are its own, the token is checked by the fault proxy (an old
one is refused as expired), and the request is signed anew without it.
"""

import datetime
import http.server
import json
import threading
from typing import Any

from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rectrain_local.s3 import REGION
from tests.support.faults import EXPIRED, HOP_BY_HOP, Effect, Exchange

SIGNATURE = HOP_BY_HOP | {"authorization", "x-amz-security-token", "x-amz-date", "content-length"}


class Sessions:
    """Serves AWS_CONTAINER_CREDENTIALS_FULL_URI. A session lasts `life_s`."""

    def __init__(self, access_key: str, secret_key: str, life_s: float) -> None:
        self.keys = Credentials(access_key, secret_key)
        self.life_s = life_s
        self.ends: dict[str, datetime.datetime] = {}
        """Of each session handed out, by its token."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(outer._begin()).encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def env(self) -> dict[str, str]:
        """A trainer's: this way of signing in, and no other."""
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self.http.server_address[1]}/keys",
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        }

    def checked(self) -> Effect:
        """For the fault proxy: refuses a session that has ended, and signs the rest by the keys alone."""

        async def effect(exchange: Exchange) -> web.StreamResponse:
            ends = self.ends.get(exchange.request.headers.get("x-amz-security-token", ""))
            if ends is None or ends < _now():
                return await EXPIRED(exchange)
            headers = {k: v for k, v in exchange.request.headers.items() if k.lower() not in SIGNATURE}
            url = f"http://{exchange.request.host}{exchange.request.raw_path}"
            signed = AWSRequest(exchange.method, url, headers, data=await exchange.body())
            S3SigV4Auth(self.keys, "s3", REGION).add_auth(signed)
            return await exchange.send(await exchange.pass_on(dict(signed.headers)))

        return effect

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def _begin(self) -> dict[str, str]:
        token = f"session-{len(self.ends)}"
        self.ends[token] = _now() + datetime.timedelta(seconds=self.life_s)
        return {
            "AccessKeyId": self.keys.access_key,
            "SecretAccessKey": self.keys.secret_key,
            "Token": token,
            "Expiration": self.ends[token].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

"""Reports progress to the operator from a thread of its own. A lost report never hurts training.

Called by the run: the thread sends what the board shows when something changed, at once for a new stage or
another percent, else every `EVERY_S`. Token and CA are files that the kubelet replaces: both are read anew
for every report that needs them, so a rotated certificate is taken up within one try.
"""

import logging
import ssl
import threading
from typing import Final

import httpx

from rectrain_api.plan import Identity
from rectrain_api.report import report_path
from rectrain_trainer.board import Board
from rectrain_trainer.environment import ReportTarget

log = logging.getLogger(__name__)

EVERY_S: Final = 10.0
AT_ONCE_S: Final = 1.0
"""Even what is worth telling at once isn't told more often than this."""
_TIMEOUT_S: Final = 10.0


class Reporter:
    """`start`, then `close`; in between it listens to the board."""

    def __init__(self, target: ReportTarget, identity: Identity, board: Board) -> None:
        self._target = target
        self._path = report_path(identity.namespace, identity.name)
        self._board = board
        self._wake = threading.Condition()
        self._dirty = self._urgent = True
        self._closing = False
        self._client: httpx.Client | None = None
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin, with a first report at once."""
        self._board.listen(self._changed)
        self._thread.start()

    def close(self, wait_s: float = 5.0) -> None:
        """Send the last state if it can be sent soon, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(wait_s)

    def _changed(self, at_once: bool) -> None:
        with self._wake:
            self._dirty = True
            self._urgent = self._urgent or at_once
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._urgent or self._closing, timeout=EVERY_S)
                dirty, closing = self._dirty, self._closing
                self._dirty = self._urgent = False
            if dirty and not self._send():
                with self._wake:
                    self._dirty = True
            if closing:
                return
            with self._wake:
                self._wake.wait_for(lambda: self._closing, timeout=AT_ONCE_S)

    def _send(self) -> bool:
        """One report; False when it should be sent again. Never raises."""
        try:
            self._client = self._client or self._connect()
            answer = self._client.put(
                self._path,
                content=self._board.report().model_dump_json(by_alias=True, exclude_none=True),
                headers={"Content-Type": "application/json"} | self._authorization(),
            )
        except (httpx.HTTPError, OSError, ValueError) as e:
            self._disconnect()
            self._complain(f"{type(e).__name__}: {e}")
            return False
        if answer.is_success:
            self._complaint = ""
            return True
        self._complain(f"HTTP {answer.status_code} {answer.text[:200].strip()}")
        return answer.status_code < 500

    def _connect(self) -> httpx.Client:
        """A client that trusts the CA file as it is now."""
        trust = ssl.create_default_context(cafile=str(self._target.ca_file)) if self._target.ca_file else True
        return httpx.Client(base_url=self._target.url, verify=trust, timeout=_TIMEOUT_S, trust_env=False)

    def _disconnect(self) -> None:
        if self._client:
            self._client.close()
        self._client = None

    def _authorization(self) -> dict[str, str]:
        if self._target.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._target.token_file.read_text().strip()}"}

    def _complain(self, why: str) -> None:
        """Once for each kind of failure."""
        if why != self._complaint:
            self._complaint = why
            log.warning("Progress can't be reported to %s (%s); training goes on.", self._target.url, why)

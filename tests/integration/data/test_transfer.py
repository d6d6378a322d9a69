"""Transfers against a real S3 service and a local folder: what arrives, who wins, what each failure says."""

import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import InputMissing, InvalidSpec, PermissionRefused, StoreUnavailable
from rectrain_data import cli, demo
from rectrain_data.packed import PackedSet
from rectrain_data.transfer import (
    Corrupt,
    Download,
    Retries,
    RetryEvent,
    S3Options,
    Store,
    Upload,
    local_path,
    local_uri,
    open_store,
    sha256_file,
)
from rectrain_data.transfer.downloads import PART_BYTES

BUCKET = "rectrain-data-tests"


@pytest.fixture(scope="module")
def env(seaweed: Any) -> dict[str, str]:
    """The environment that reaches the store, and its bucket."""
    seaweed.make_bucket(BUCKET)
    return dict(seaweed.env)


@pytest.fixture(params=["s3", "file"])
def store(
    env: dict[str, str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """A place of each test's own, of each kind."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    if request.param == "s3":
        return open_store(f"s3://{BUCKET}/{name}", S3Options.from_environment(env))
    return open_store(local_uri(tmp_path_factory.mktemp("places") / name), S3Options())


def open_with(env: dict[str, str], uri: str = f"s3://{BUCKET}/x", **changes: str) -> Store:
    return open_store(uri, S3Options.from_environment(env | changes), Retries(1))


def test_bytes_come_back(store: Store) -> None:
    store.put_bytes("a/b c/ü+%.bin", b"hello")
    assert store.get("a/b c/ü+%.bin") == b"hello"
    assert store.get_range("a/b c/ü+%.bin", 1, 3) == b"ell"
    assert store.get_range("a/b c/ü+%.bin", 0, 0) == b""
    info = store.head("a/b c/ü+%.bin")
    assert info is not None
    assert (info.size, info.sha256) == (5, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    store.copy("a/b c/ü+%.bin", "copied")
    assert store.at("a").get("b c/ü+%.bin") == store.get("copied") == b"hello"
    store.delete(["copied", "never there"])
    assert store.get("copied") is None
    assert store.head("copied") is None


def test_files_of_all_sizes_come_back(store: Store, tmp_path: Path) -> None:
    sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 17]
    for number, size in enumerate(sizes):
        (tmp_path / str(number)).write_bytes((b"%07d" % number) * (size // 7) + b"x" * (size % 7))
    seen: list[int] = []
    uploads = [Upload(tmp_path / str(n), str(n)) for n in range(len(sizes))]
    assert store.upload_all(uploads, progress=seen.append) == sum(seen) == sum(sizes)
    assert store.upload_all(uploads) == 0
    for known in (True, False):
        downloads = [
            Download(
                str(n), tmp_path / f"{known}/{n}", size if known else None, sha256_file(tmp_path / str(n))
            )
            for n, size in enumerate(sizes)
        ]
        seen.clear()
        store.download_all(downloads, progress=seen.append)
        assert sum(seen) == sum(sizes)
        for n in range(len(sizes)):
            assert (tmp_path / f"{known}/{n}").read_bytes() == (tmp_path / str(n)).read_bytes()


def test_what_differs_from_its_promise_is_not_kept(store: Store, tmp_path: Path) -> None:
    store.put_bytes("small", b"small")
    (tmp_path / "large").write_bytes(b"l" * (PART_BYTES + 1))
    store.put_file("large", tmp_path / "large")
    for item in (
        Download("small", tmp_path / "out", 5, "0" * 64),
        Download("small", tmp_path / "out", 4),
        Download("large", tmp_path / "out", PART_BYTES + 1, "0" * 64),
        Download("large", tmp_path / "out", PART_BYTES + 2),
        Download("large", tmp_path / "out", 3 * PART_BYTES),
    ):
        with pytest.raises(Corrupt, match=f"{re.escape(store.uri)}.*(upload|write) it again"):
            store.download_file(item)
    assert [p.name for p in tmp_path.iterdir()] == ["large"]
    with pytest.raises(Corrupt):
        store.get_range("small", 3, 10)


def test_the_first_error_stops_the_rest_and_leaves_nothing_half_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"l" * (4 * PART_BYTES))
    store.put_file("large", tmp_path / "large")
    items = [
        Download("large", tmp_path / "out/large", 4 * PART_BYTES),
        Download("missing", tmp_path / "out/missing"),
    ]
    with pytest.raises(InputMissing, match="missing"):
        store.download_all(items, limit=2)
    assert [p for p in (tmp_path / "out").iterdir() if p.name != "large"] == []


def test_lists_are_complete_and_in_order(store: Store) -> None:
    keys = [f"log/{n:08d}.json" for n in range(1, 1103)]
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(lambda key: store.create(key, key.encode()), keys))
    store.put_bytes("logs/other", b"x")
    assert store.list_keys("log/") == keys
    assert store.list_keys("log/", keys[-2]) == keys[-1:]
    assert store.list_keys("log/", keys[-1]) == []
    assert store.list_keys("none/") == []
    assert store.get_all(keys[:50]) == [key.encode() for key in keys[:50]]


def test_exactly_one_create_of_a_key_wins(store: Store) -> None:
    for round_ in range(2):
        barrier = threading.Barrier(16)

        def race(number: int, key: str = f"round-{round_}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.create(key, b"%d" % number)

        with ThreadPoolExecutor(16) as pool:
            wins = list(pool.map(race, range(16)))
        assert wins.count(True) == 1
        assert store.get(f"round-{round_}") == b"%d" % wins.index(True)


def test_the_probe_accepts_a_store_that_keeps_its_promise(store: Store) -> None:
    store.probe_conditional_writes()
    assert store.list_keys("") == []


def test_a_store_that_ignores_the_condition_is_refused(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def overwrite(self: Store, key: str, data: bytes) -> bool:
        self.put_bytes(key, data)
        return True

    monkeypatch.setattr(Store, "create", overwrite)
    with pytest.raises(InvalidSpec) as refused:
        store.probe_conditional_writes()
    assert re.fullmatch(
        r"The (S3 service at http|file system of file)://\S+ doesn't honour conditional writes \(16 of 16 "
        r"creates of one key won\), so a stale pod could overwrite a newer one: use a store that does, or "
        r"set checkpoint\.fencing to Off\.",
        str(refused.value),
    )


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    for ask in (
        lambda: store.get_bytes("nothing"),
        lambda: store.get_range("nothing", 0, 5),
        lambda: store.copy("nothing", "x"),
        lambda: store.download_file(Download("nothing", tmp_path / "x")),
    ):
        with pytest.raises(InputMissing, match=rf"{re.escape(store.uri)}/nothing isn't there"):
            ask()
    assert store.get("nothing/below") is None


def test_a_bucket_that_is_not_there_is_named(env: dict[str, str]) -> None:
    absent = open_with(env, "s3://no-such-bucket/x")
    for ask in (lambda: absent.list_keys(""), lambda: absent.get("k"), lambda: absent.get_bytes("k")):
        with pytest.raises(InputMissing, match=r"bucket no-such-bucket"):
            ask()


def test_a_local_folder_says_what_it_refuses(tmp_path: Path) -> None:
    store = open_store(local_uri(tmp_path / "run"), S3Options(), Retries(0.1))
    store.put_bytes("a", b"whole")
    assert store.get("a/below") is None
    (tmp_path / "run/b#1").write_bytes(b"what a writer that was killed leaves")
    assert store.list_keys("") == ["a"]
    assert local_path(store.uri) == tmp_path / "run"
    for _ in range(2):
        store.copy("a", "again/a")
    assert [file.name for file in (tmp_path / "run/again").iterdir()] == ["a"]
    with pytest.raises(InputMissing, match=rf"{store.uri}/a/below isn't there .*Not a directory"):
        store.put_bytes("a/below", b"x")
    with pytest.raises(InvalidSpec, match="isn't a usable place"):
        store.put_bytes("a//b", b"x")
    with pytest.raises(InvalidSpec, match="write it like file:///"):
        open_store("file://relative/run", S3Options())
    kernels_own = open_store("file:///sys/rectrain", S3Options())  # not even root may write there
    with pytest.raises(PermissionRefused, match=r"file:///sys/rectrain/probe.*change its permissions"):
        kernels_own.probe_conditional_writes()


@pytest.mark.parametrize("changes", [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "nobody"}])
def test_wrong_keys_are_refused_at_once(env: dict[str, str], changes: dict[str, str], tmp_path: Path) -> None:
    store = open_with(env, **changes)
    (tmp_path / "f").write_bytes(b"x")
    asks: list[Callable[[], object]] = [
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.list_keys(""),
        lambda: store.put_file("k", tmp_path / "f"),
        lambda: store.create("k", b"x"),
    ]
    for ask in asks:
        with pytest.raises(PermissionRefused, match=f"s3://{BUCKET}"):
            ask()


def test_a_store_that_is_away_is_told_at_once_and_given_up_in_time(env: dict[str, str]) -> None:
    events: list[RetryEvent] = []
    options = S3Options.from_environment(env | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1.*refuses connections"):
        open_store("s3://bucket/x", options, Retries(2, events.append)).get("k")
    assert events
    assert events[0].waited_s < 2
    assert time.monotonic() - started < 20


class Flaky(http.server.BaseHTTPRequestHandler):
    """Answers 503 a few times, then well."""

    answers: Iterator[int]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = next(self.answers, 200)
        body = b"there" if status == 200 else b"<Error><Code>SlowDown</Code></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 02 Jan 2023 03:04:05 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


def test_a_store_that_comes_back_is_used(env: dict[str, str]) -> None:
    handler = type("Handler", (Flaky,), {"answers": iter([503] * 4)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        events: list[RetryEvent] = []
        endpoint = f"http://127.0.0.1:{server.server_port}"
        options = S3Options.from_environment(env | {"AWS_ENDPOINT_URL_S3": endpoint})
        assert open_store("s3://bucket/x", options, Retries(60, events.append)).get("k") == b"there"
        server.shutdown()
    assert "SlowDown" in events[0].sentence


def test_a_set_goes_up_by_the_command_line_and_comes_back(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{BUCKET}/command-line/set"
    assert cli.run(["demo", str(tmp_path / "d"), "--count", "60"]) == 0
    assert cli.run(["upload", str(tmp_path / "d/packed"), uri]) == 0
    capsys.readouterr()
    assert cli.run(["upload", str(tmp_path / "d/packed"), uri]) == 0
    assert " 0 had to be sent" in capsys.readouterr().err
    assert cli.run(["ls", uri]) == 0
    assert "images/00000.png" in capsys.readouterr().out

    store = open_store(uri, S3Options.from_environment(env))
    store.download_file(Download("index.json", tmp_path / "back/index.json"))
    files = PackedSet.files(tmp_path / "back")
    store.download_all([Download(f.name, tmp_path / "back" / f.name, f.size, f.sha256) for f in files])
    PackedSet.open(tmp_path / "back").verify()

    assert cli.run(["upload", str(tmp_path / "d/loose"), f"{uri}-loose"]) == 0
    assert cli.run(["ls", f"{uri}-nothing"]) == 66
    assert cli.run(["upload", str(tmp_path / "d/loose/images"), uri]) == 66
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert cli.run(["ls", uri]) == 77


def test_a_damaged_set_is_not_uploaded(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    demo_folder = tmp_path / "d"
    assert cli.run(["demo", str(demo_folder), "--count", "10"]) == 0
    (demo_folder / "packed/dictionary.txt").write_text("0\n")
    uri = f"s3://{BUCKET}/damaged"
    assert cli.run(["upload", str(demo_folder / "packed"), uri]) == 65
    assert open_store(uri, S3Options.from_environment(env)).list_keys("") == []


def test_an_upload_over_another_set_never_mixes_index_and_shards(
    env: dict[str, str], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    demo.make(tmp_path / "loose", count=20, seed=1)
    assert cli.run(["pack", str(tmp_path / "loose"), "-o", str(tmp_path / "one")]) == 0
    assert cli.run(["pack", str(tmp_path / "loose"), "-o", str(tmp_path / "two"), "--height", "48"]) == 0
    assert cli.run(["upload", str(tmp_path / "one"), store.uri]) == 0

    def cut_off(self: Store, items: object, **options: object) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload_all", cut_off)
        assert cli.run(["upload", str(tmp_path / "two"), store.uri]) == 69
    assert store.head("index.json") is None
    assert cli.run(["upload", str(tmp_path / "two"), store.uri]) == 0
    assert store.get("index.json") == (tmp_path / "two/index.json").read_bytes()

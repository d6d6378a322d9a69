"""The parts of the transfer that need no S3: options, error mapping, retries, bulk work."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import obstore.exceptions
import pytest

from rectrain_api.errors import InputMissing, Interrupted, InvalidSpec, PermissionRefused, StoreUnavailable
from rectrain_data.transfer import Corrupt, Retries, RetryEvent, S3Options, Store, split_uri
from rectrain_data.transfer.bulk import for_each
from rectrain_data.transfer.errors import Failure, classify
from rectrain_data.transfer.local import classify as classify_local

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "very-secret"}


def test_what_is_given_wins_over_the_environment() -> None:
    env = KEYS | {
        "AWS_ENDPOINT_URL_S3": "http://env:1",
        "AWS_ENDPOINT_URL": "http://all:1",
        "AWS_REGION": "r1",
    }
    assert S3Options.from_environment(env).endpoint == "http://env:1"
    assert S3Options.from_environment(env).region == "r1"
    given = S3Options.from_environment(env, endpoint="https://given:2/", region="r2")
    assert (given.endpoint, given.region) == ("https://given:2", "r2")
    assert S3Options.from_environment(KEYS).region == "us-east-1"


def test_describe_says_where_things_come_from_and_no_secret() -> None:
    options = S3Options.from_environment(
        KEYS | {"AWS_ENDPOINT_URL_S3": "http://env:1", "AWS_SESSION_TOKEN": "tok-en"}
    )
    text = options.describe()
    assert "http://env:1" in text
    assert "AWS_ENDPOINT_URL_S3" in text
    assert "AWS_ACCESS_KEY_ID" in text
    for shown in (text, repr(options)):
        assert "very-secret" not in shown
        assert "tok-en" not in shown


def test_an_aws_profile_gives_endpoint_region_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[profile minio]\nregion = eu-west-3\nendpoint_url = http://profile:9000\n"
        "aws_access_key_id = PROFILEKEY\naws_secret_access_key = very-secret\n"
    )
    for name in (
        *KEYS,
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_SESSION_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "minio")
    options = S3Options.from_environment()
    assert (options.endpoint, options.region) == ("http://profile:9000", "eu-west-3")
    assert options.credential_provider()()["access_key_id"] == "PROFILEKEY"  # type: ignore[index]
    assert "profile minio" in options.describe()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InvalidSpec, match="nobody"):
        S3Options.from_environment()


def test_no_keys_at_all_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionRefused, match="AWS_ACCESS_KEY_ID"):
        S3Options.from_environment({}).credential_provider()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY isn't"),
        ({"AWS_SECRET_ACCESS_KEY": "a"}, "AWS_ACCESS_KEY_ID isn't"),
        (KEYS | {"AWS_ENDPOINT_URL_S3": "minio:9000"}, "isn't a URL"),
    ],
)
def test_bad_options_are_refused(env: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        S3Options.from_environment(env)


def test_a_ca_bundle_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    options = S3Options.from_environment(KEYS | {"AWS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    with pytest.raises(InvalidSpec, match=r"ca\.pem"):
        options.client_config()


def test_buckets_go_into_path_or_host() -> None:
    local = S3Options(endpoint="http://127.0.0.1:1")
    assert local.config("bkt")["endpoint"] == "http://127.0.0.1:1"
    virtual = S3Options(endpoint="https://s3.example:9000", addressing_style="Virtual")
    assert virtual.config("bkt")["endpoint"] == "https://bkt.s3.example:9000"
    assert S3Options().config("bkt")["virtual_hosted_style_request"] is True
    assert S3Options().config("b.k.t")["virtual_hosted_style_request"] is False


@pytest.mark.parametrize("uri", ["", "bucket/key", "http://bucket/key", "s3://", "s3:///key"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidSpec):
        split_uri(uri)


def answer(status: int, code: str) -> obstore.exceptions.BaseError:
    return obstore.exceptions.GenericError(
        f"Server returned non-2xx status code: {status} X: <Error><Code>{code}</Code></Error>"
    )


@pytest.mark.parametrize(
    ("exc", "kind", "transient"),
    [
        (answer(404, "NoSuchBucket"), InputMissing, False),
        (answer(404, "NoSuchKey"), InputMissing, False),
        (answer(403, "AccessDenied"), PermissionRefused, False),
        (answer(400, "ExpiredToken"), PermissionRefused, False),
        (answer(403, "SomethingNew"), PermissionRefused, False),
        (obstore.exceptions.GenericError("non-2xx status code: 400 Bad Request"), PermissionRefused, False),
        (answer(301, "PermanentRedirect"), InvalidSpec, False),
        (answer(400, "InvalidBucketName"), InvalidSpec, False),
        (answer(501, "NotImplemented"), InvalidSpec, False),
        (answer(416, "InvalidRange"), Corrupt, False),
        (answer(503, "SlowDown"), StoreUnavailable, True),
        (answer(500, "InternalError"), StoreUnavailable, True),
        (answer(429, "TooMany"), StoreUnavailable, True),
        (answer(400, "RequestTimeout"), StoreUnavailable, True),
        (obstore.exceptions.GenericError("HTTP error: error sending request"), StoreUnavailable, True),
        (obstore.exceptions.PermissionDeniedError("no"), PermissionRefused, False),
    ],
)
def test_every_answer_has_its_meaning(exc: Exception, kind: type[Exception], transient: bool) -> None:
    failure = classify(exc, "s3://bkt/some/key", "http://minio:9000")
    assert type(failure.error) is kind
    assert failure.transient is transient
    assert "bkt" in str(failure.error)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda store: store.put_bytes("a/b", b""), "refuses writing s3://bkt/run/a/b (AccessDenied)"),
        (lambda store: store.create("a/b", b""), "refuses writing s3://bkt/run/a/b (AccessDenied)"),
        (lambda store: store.copy("a", "b"), "writing s3://bkt/run/b as a copy of s3://bkt/run/a (Acc"),
        (lambda store: store.delete(["a"]), "refuses deleting s3://bkt/run/a (AccessDenied)"),
        (lambda store: store.get("a"), "refuses reading s3://bkt/run/a (AccessDenied)"),
        (lambda store: store.list_keys("a"), "refuses listing s3://bkt/run/a (AccessDenied)"),
    ],
)
def test_what_was_refused_is_said(
    call: Callable[[Store], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may be readable, and that alone."""

    def refuse(*_: Any, **__: Any) -> None:
        raise answer(403, "AccessDenied")

    for name in ("put", "get", "copy", "delete", "list"):
        monkeypatch.setattr(obstore, name, refuse)
    inner: Any = None
    with pytest.raises(PermissionRefused) as refused:
        call(Store(inner, "s3://bkt", "run", None, Retries()))
    assert said in str(refused.value)


class Clock:
    """Time that passes only when it is waited for."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def away(_: BaseException) -> Failure:
    return Failure(StoreUnavailable("S3 is away."), transient=True)


def fail() -> None:
    raise OSError("no")


def test_retries_end_at_the_deadline_and_tell_each_time() -> None:
    events: list[RetryEvent] = []
    retries = Retries(6, events.append, clock=Clock())
    with pytest.raises(StoreUnavailable):
        retries.run(fail, away)
    assert events[0].sentence == "S3 is away."
    assert [e.attempt for e in events] == list(range(1, len(events) + 1))
    assert 0 < events[0].wait_s < 1
    assert all(e.waited_s < 6 for e in events)


def test_what_cannot_succeed_is_not_tried_again() -> None:
    calls: list[int] = []

    def once() -> None:
        calls.append(1)
        raise OSError("no")

    with pytest.raises(PermissionRefused):
        Retries().run(once, lambda _: Failure(PermissionRefused("no"), transient=False))
    assert len(calls) == 1


def test_shrinking_ends_waits_that_run() -> None:
    told = threading.Event()
    retries = Retries(3600, lambda event: told.set() if event.attempt == 2 else None)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            retries.run(fail, away)
        except StoreUnavailable as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    assert told.wait(30)
    retries.shrink(0)
    thread.join(1)
    assert len(ended) == 1


def test_bulk_work_is_bounded_and_stops_at_the_first_error() -> None:
    running, most, done, lock = 0, 0, 0, threading.Lock()

    def work(item: int) -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        if item == 50:
            raise InputMissing("50")
        with lock:
            running -= 1
            done += 1

    with pytest.raises(InputMissing, match="50"):
        for_each(iter(range(10**9)), work, limit=4)
    assert most <= 4
    assert done < 100_000


def test_being_told_to_stop_inside_a_request_is_no_failure_of_the_store() -> None:
    events: list[RetryEvent] = []

    def request() -> None:
        raise Interrupted("Told to stop (SIGTERM).")

    with pytest.raises(Interrupted):
        Retries(0.5, events.append).run(request, lambda exc: classify(exc, "s3://b/k", None))
    assert events == []


@pytest.mark.parametrize(
    ("number", "kind", "transient"),
    [
        (errno.ENOSPC, StoreUnavailable, True),
        (errno.EIO, StoreUnavailable, True),
        (errno.EROFS, PermissionRefused, False),
        (errno.EACCES, PermissionRefused, False),
        (errno.ENOTDIR, InputMissing, False),
    ],
)
def test_what_a_local_disk_says_is_understood(number: int, kind: type[Exception], transient: bool) -> None:
    """A full disk may be made room on: training goes on meanwhile, as while S3 is away."""
    said = f"Generic LocalFileSystem error: Unable to copy data: {os.strerror(number)} (os error {number})"
    failure = classify_local(obstore.exceptions.GenericError(said), "file:///home/me/run/log/1")
    assert isinstance(failure.error, kind)
    assert failure.transient == transient
    assert "file:///home/me/run/log/1 " in str(failure.error)
    assert os.strerror(number) in str(failure.error)

"""S3 takes the cluster's random keys and no others, and keeps what it was given."""

import urllib.request

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rectrain_local.s3 import SeaweedS3
from tests.support.processes import listening_addresses, listening_ports


def client(seaweed: SeaweedS3, access_key: str, secret_key: str):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )


def test_the_random_keys_work(seaweed: SeaweedS3) -> None:
    s3 = client(seaweed, seaweed.access_key, seaweed.secret_key)
    assert seaweed.make_bucket("mine") == seaweed.make_bucket("mine") == "s3://mine"
    s3.put_object(Bucket="mine", Key="a", Body=b"one")
    assert s3.get_object(Bucket="mine", Key="a")["Body"].read() == b"one"


@pytest.mark.parametrize("which", ["access", "secret"])
def test_other_keys_are_refused(seaweed: SeaweedS3, which: str) -> None:
    access, secret = seaweed.access_key, seaweed.secret_key
    s3 = client(
        seaweed, "X" + access if which == "access" else access, "X" + secret if which == "secret" else secret
    )
    with pytest.raises(ClientError) as refused:
        s3.list_buckets()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_an_existing_object_is_not_created_again(seaweed: SeaweedS3) -> None:
    s3 = client(seaweed, seaweed.access_key, seaweed.secret_key)
    seaweed.make_bucket("once")
    s3.put_object(Bucket="once", Key="log", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="once", Key="log", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_it_listens_on_the_loopback_address_only(seaweed: SeaweedS3) -> None:
    assert listening_addresses({child.pid for child in seaweed.children}) <= {"0100007F"}


def test_inner_doors_are_closed_to_other_users(seaweed: SeaweedS3) -> None:
    """SeaweedFS's filer would give every object to anybody on this machine who asks its port."""
    seaweed.make_bucket("secret")
    client(seaweed, seaweed.access_key, seaweed.secret_key).put_object(Bucket="secret", Key="k", Body=b"x")
    answers = {}
    for port in listening_ports({child.pid for child in seaweed.children}):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/buckets/secret/k", timeout=5) as answer:
                answers[port] = answer.read()
        except OSError as refused:
            answers[port] = str(refused).encode()
    assert len(answers) > 5
    assert b"x" not in answers.values()
    assert any(b"401" in answer for answer in answers.values())


def test_the_keys_and_data_survive_a_crash(seaweed: SeaweedS3) -> None:
    seaweed.make_bucket("durable")
    s3 = client(seaweed, seaweed.access_key, seaweed.secret_key)
    s3.put_object(Bucket="durable", Key="k", Body=b"kept")
    seaweed.stop(kill=True)
    seaweed.restart()
    assert s3.get_object(Bucket="durable", Key="k")["Body"].read() == b"kept"


def test_the_users_own_aws_settings_do_not_matter(
    seaweed: SeaweedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-another-account")
    assert seaweed.make_bucket("own") == "s3://own"

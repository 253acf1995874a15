# Image for training, search and export on NVIDIA GPUs, alone or as a node of a Ray cluster; from the project's root:
#   docker build -f infra/docker/train.Dockerfile -t maag-train:0.1.0 .
FROM python:3.11-slim

# wget: KubeRay's health checks use it. ssh and rsync: a head that `ray up` started reaches its workers, and copies its
# own configuration, with them. gcc and libc6-dev: Triton, which train.compile uses for GPU kernels, compiles their
# launchers with them.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends \
    gcc libc6-dev openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/maag
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY maag maag
COPY tune tune
COPY deploy deploy
COPY infra/ray/spot_notice.py infra/ray/
# The registry's Linux builds of torch and onnxruntime-gpu bring CUDA with them.
RUN pip install --no-cache-dir --constraint constraints.txt '.[cluster]' \
    && useradd --create-home --uid 1000 maag \
    && mkdir /cache /data && chown maag /cache /data

USER 1000
WORKDIR /home/maag
ENV MAAG_DATA=/data MAAG_CACHE=/cache RAY_USAGE_STATS_ENABLED=0
CMD ["maag", "--help"]

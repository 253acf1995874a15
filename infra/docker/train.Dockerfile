# Image that trains, tunes and exports on NVIDIA GPUs; build it from the project's root:
#   docker build -f infra/docker/train.Dockerfile -t maag-train .
FROM python:3.11-slim

WORKDIR /opt/maag
COPY pyproject.toml constraints.txt README.md ./
COPY maag maag
COPY tune tune
COPY deploy deploy
# The registry's Linux builds of torch and onnxruntime-gpu bring CUDA with them.
RUN pip install --no-cache-dir --constraint constraints.txt .

RUN useradd --create-home maag
USER maag
WORKDIR /work
ENV MAAG_DATA=/data MAAG_CACHE=/cache
ENTRYPOINT ["maag"]

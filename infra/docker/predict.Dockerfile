# Image for segmenting with an exported model on a CPU, without CUDA, Ray and everything else that training needs:
#   docker build -f infra/docker/predict.Dockerfile -t maag-predict:0.1.0 .
FROM python:3.11-slim

WORKDIR /opt/maag
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY maag maag
COPY tune tune
COPY deploy deploy
COPY infra/docker/predict.txt infra/docker/
# The CUDA-free build of torch is only on PyTorch's own index, which lacks some of torch's dependencies; then maag
# without the dependencies that only training needs.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    "$(grep '^torch==' constraints.txt)+cpu" --requirement infra/docker/predict.txt \
    && pip install --no-cache-dir --no-deps . \
    && useradd --create-home --uid 1000 maag

USER 1000
WORKDIR /home/maag
CMD ["maag", "predict", "--help"]

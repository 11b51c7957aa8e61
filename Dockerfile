# docker build -t onnx-upscale .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" onnx-upscale in.onnx masks.json out.onnx
FROM python:3.11-slim-bookworm AS build

WORKDIR /src
COPY . .
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile .
ARG VERSION=
RUN [ -z "$VERSION" ] || /opt/venv/bin/onnx-upscale --version | grep -Fx "onnx-upscale, version $VERSION"
# Test suites and training helpers that inference never imports.
RUN cd /opt/venv/lib/python3.11/site-packages \
    && rm -rf onnx/backend/test \
    && find numpy ml_dtypes google -type d -name tests -prune -exec rm -rf {} + \
    && find onnxruntime -maxdepth 1 -type d \( -name tools -o -name transformers -o -name quantization \) \
        -exec rm -rf {} + \
    && python3 -m compileall -q -j 0 . >/dev/null

FROM python:3.11-slim-bookworm

COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["onnx-upscale"]
CMD ["--help"]
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="onnx-upscale" \
      org.opencontainers.image.description="Channel pruning for ONNX models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

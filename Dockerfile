# Two images of one program: `cpu`, which is what `docker build .` makes, and `cuda`
# (`docker build --target cuda .`). Both are of Debian 12: what is built on its C library runs on it.

FROM rust:1.95.0-slim-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
# For the allocator's build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# The registry and the dependencies stay in a cache, the program leaves it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin medgemma \
    && install -D target/dist/medgemma /out/medgemma


# What the program is made of, as CycloneDX has it, under the name by which scanners of images find it.
FROM build AS sbom
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install cargo-cyclonedx --version 0.5.9 --locked --target-dir /tmp/cyclonedx \
    && cargo cyclonedx --format json --spec-version 1.5 --override-filename medgemma.cdx \
    && install -D --mode 644 medgemma.cdx.json /out/sbom/medgemma.cdx.json


# What the program needs around it, and nothing else: its C library, the certificates of the web's
# authorities, a user, and folders to write in. No shell, no package manager.
FROM build AS root
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN mkdir -p /root-fs/usr/local/bin /root-fs/etc/ssl/certs /root-fs/cache /root-fs/tmp \
    && ldd /out/medgemma | grep -o '/[^ ]*' | xargs cp --parents --dereference -t /root-fs \
    && cp --dereference /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && cp /out/medgemma /root-fs/usr/local/bin/ \
    && echo 'medgemma:x:10001:10001::/cache:/sbin/nologin' > /root-fs/etc/passwd \
    && echo 'medgemma:x:10001:' > /root-fs/etc/group \
    && echo 'hosts: files dns' > /root-fs/etc/nsswitch.conf \
    && chmod 1777 /root-fs/cache /root-fs/tmp


# NVIDIA's run-time compiler, without its headers and its second copy. It is the only library of
# CUDA's that the program opens besides the driver's, which the container runtime brings.
FROM python:3.13-slim-bookworm AS nvrtc
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN pip install --no-cache-dir --no-deps --target /nvrtc nvidia-cuda-nvrtc==13.0.88 \
    && mkdir /nvrtc-lib \
    && cp /nvrtc/nvidia/cu13/lib/libnvrtc.so.13 \
    /nvrtc/nvidia/cu13/lib/libnvrtc-builtins.so.13.0 /nvrtc-lib/


# Kernels of all named models for all GPUs, so that the first start compiles nothing. Code for
# sm_80 and sm_89 runs on all of Ampere and Ada, for sm_120 on all consumer Blackwells.
FROM debian:bookworm-slim AS kernels
COPY --from=nvrtc /nvrtc-lib /nvrtc-lib
COPY --from=build /out/medgemma /usr/local/bin/
RUN LD_LIBRARY_PATH=/nvrtc-lib medgemma kernels --out /kernels \
    --arch sm_80,sm_89,sm_90a,sm_100a,sm_103,sm_120


# On a base with Debian's loader and ldconfig, which NVIDIA's container runtime uses to put the
# driver in.
FROM debian:bookworm-slim AS cuda
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="medgemma-server" \
      org.opencontainers.image.description="MedGemma and Gemma 3 behind an OpenAI-compatible API, on NVIDIA GPUs" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
RUN groupadd --gid 10001 medgemma \
    && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /sbin/nologin medgemma \
    && mkdir --mode 1777 /cache
COPY --from=root /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=nvrtc /nvrtc-lib /usr/local/lib/nvrtc
COPY --from=kernels /kernels /usr/local/share/medgemma/kernels
COPY --from=sbom /out/sbom /usr/local/share/sbom
COPY --from=build /out/medgemma /usr/local/bin/
# A container without a GPU is told so, rather than left to compute on the CPU.
ENV HOME=/cache \
    HF_HOME=/cache/huggingface \
    LD_LIBRARY_PATH=/usr/local/lib/nvrtc \
    MEDGEMMA_DEVICE=cuda \
    MEDGEMMA_HOST=0.0.0.0 \
    MEDGEMMA_KERNELS=/usr/local/share/medgemma/kernels \
    MEDGEMMA_KERNEL_CACHE=/cache/kernels \
    MEDGEMMA_URL_FILE=/tmp/medgemma.url \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all
USER 10001:10001
WORKDIR /cache
VOLUME /cache
EXPOSE 8000
# A model may have to be downloaded first: until then nothing counts against it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2h --retries=3 CMD ["medgemma", "ready"]
ENTRYPOINT ["medgemma"]
CMD ["serve"]


FROM scratch AS cpu
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="medgemma-server" \
      org.opencontainers.image.description="MedGemma and Gemma 3 behind an OpenAI-compatible API, on the CPU" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=root /root-fs /
COPY --from=sbom /out/sbom /usr/local/share/sbom
ENV HOME=/cache \
    HF_HOME=/cache/huggingface \
    MEDGEMMA_DEVICE=cpu \
    MEDGEMMA_HOST=0.0.0.0 \
    MEDGEMMA_URL_FILE=/tmp/medgemma.url \
    PATH=/usr/local/bin
USER 10001:10001
WORKDIR /cache
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=2h --retries=3 CMD ["medgemma", "ready"]
ENTRYPOINT ["medgemma"]
CMD ["serve"]

# One image for every role: the orchestrator (`serve`), the migrations (`migrate`) and the executors (`executor`).
FROM rust:1.95-slim-bookworm AS build
# ring's assembly needs a C compiler.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# Longer to build, a tenth less work for the server (docs/BENCHMARKS.md).
ENV CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package longtake --bin longtake \
    && install -D target/release/longtake /out/longtake

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates espeak-ng ffmpeg fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/longtake --shell /usr/sbin/nologin longtake \
    && install -d -o longtake -g longtake /var/lib/longtake/artifacts
COPY --from=build /out/longtake /usr/local/bin/longtake
COPY workflows /etc/longtake/workflows
USER longtake
WORKDIR /var/lib/longtake
VOLUME /var/lib/longtake/artifacts
EXPOSE 50051 8080
# Of the orchestrator; whoever runs another role switches it off. The shell asks: no HTTP client is in the image.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM drains: give a container longer than the executor's grace before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["longtake"]
CMD ["serve", "--grpc-listen", "0.0.0.0:50051", "--http-listen", "0.0.0.0:8080", "--workflows", "/etc/longtake/workflows"]

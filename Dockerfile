# The manager as a static program in an image with nothing else, for either architecture:
#   docker build --build-arg TARGETARCH=arm64 --tag localhost/ipam-in-cluster:v2.0.0 .
# It is compiled on the machine that builds, not under emulation.
ARG RUST_VERSION=1.95
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
ARG TARGETARCH=amd64
RUN case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
      arm64) target=aarch64-unknown-linux-gnu packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
      *) echo "TARGETARCH is amd64 or arm64, not $TARGETARCH" >&2; exit 1 ;; \
    esac \
 && echo "$target" >/target \
 && if [ "$target" != "$(rustc -vV | sed -n 's/^host: //p')" ]; then \
      apt-get update && apt-get install --yes --no-install-recommends $packages && rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /source
COPY . .
RUN rustup target add "$(cat /target)"
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    RUSTFLAGS="-C target-feature=+crt-static"
RUN cargo build --locked --release --bin manager --target "$(cat /target)" \
 && cp "target/$(cat /target)/release/manager" /manager

FROM scratch
COPY --from=build /manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]

# The root in which `cross` compiles for Arm boards (cross.toml).
#
# Debian bullseye: what is linked there starts on every system whose C library is no older than 2.31,
# and its assembler knows the int8 dot product, without which tract leaves its kernels for it out and
# says nothing. Image and packages are those of one day; bullseye gets no updates after it.
FROM debian:bullseye-20260824-slim@sha256:e5b6442dd2e9684cf5e87d8338b5968f3b348636fc0be6d7850a381e3731a2bd

ARG DEBIAN=http://snapshot.debian.org/archive/debian/20260824T000000Z
ARG SECURITY=http://snapshot.debian.org/archive/debian-security/20260824T000000Z

# gcc links build scripts, which run here; qemu-user runs the tests of `cross test`.
RUN printf 'deb [check-valid-until=no] %s %s main\n' \
        "$DEBIAN" bullseye "$SECURITY" bullseye-security >/etc/apt/sources.list \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev qemu-user \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
    && rm -rf /var/lib/apt/lists/*

ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

# Another number than cargo's own gives build scripts other names in target/: those of a cargo outside
# of this image ask for the C library of that machine, and would not start here.
ENV CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_CODEGEN_UNITS=255 \
    CARGO_PROFILE_DEV_BUILD_OVERRIDE_CODEGEN_UNITS=255

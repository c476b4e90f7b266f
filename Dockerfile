# The image that charts/quorate runs: `podman build -t quorate .` (or docker, or buildah).
# BUILD and BASE may be any Debian 12, a debootstrap's own, too.
ARG BUILD=debian:12
ARG BASE=debian:12-slim

FROM ${BUILD} AS build
COPY . /src
WORKDIR /src
RUN tools/setup --packages && tools/configure release && ninja -C build/release quorate && \
    strip -o /quorate build/release/quorate

FROM ${BASE}
RUN export DEBIAN_FRONTEND=noninteractive && apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libabsl20220623 libc-ares2 \
        libcpp-httplib0.11 libgrpc++1.51 libisal2 libprometheus-cpp-core1.0 libprotobuf32 \
        libspdlog1.10 libsqlite3-0 libstdc++6 libxxhash0 libyaml-cpp0.7 && \
    rm -rf /var/lib/apt/lists/* && \
    install -d -o 10001 -g 10001 /data
COPY --from=build /quorate /usr/local/bin/quorate
# Nobody's root, and nobody whom the image has to know.
USER 10001:10001
VOLUME /data
EXPOSE 8080 7000 8081
ENTRYPOINT ["quorate"]
CMD ["serve", "--config", "/etc/quorate/quorate.yaml"]

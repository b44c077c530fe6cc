# One image for the API, the worker, beat and Flower. No embedded servers are in it.
FROM python:3.11-slim-bookworm AS build

# requirements-tracing.lock brings the extra `tracing`: docs/tracing.md
ARG LOCK=requirements.lock

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

COPY ${LOCK} ./
RUN python -m venv /opt/callboard \
    && /opt/callboard/bin/pip install --require-hashes -r ${LOCK}

COPY requirements-build.lock ./
RUN pip install --require-hashes -r requirements-build.lock

COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/callboard/bin/pip install --no-deps /wheels/*.whl


FROM python:3.11-slim-bookworm

RUN useradd --system --uid 10001 --no-create-home --home-dir /app callboard
COPY --from=build /opt/callboard /opt/callboard
WORKDIR /app
COPY actions ./actions

ENV PATH=/opt/callboard/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=8000
USER callboard
EXPOSE 8000
CMD ["callboard", "web"]

# A Valkey for machines that reach no image registry; elsewhere the chart's own image is pulled.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends valkey-server valkey-tools && rm -rf /var/lib/apt/lists/*
USER 999:999

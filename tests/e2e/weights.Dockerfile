# The weights of the story, to be copied to a volume: folders tiny.en and base.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY . /weights
USER 65532:65532

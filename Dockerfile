# `make demo` on a CPU: docker build -t mvae_fast . && docker run --rm mvae_fast
FROM python:3.12-slim-bookworm

# Of a smaller torch than the index has, which comes with CUDA: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user && install -d -o user /home/user/mvae_fast
USER 1000
WORKDIR /home/user/mvae_fast
COPY --chown=user . .

# Compiles and installs, as `make demo` does first; without this line each run would.
RUN make .venv/.stamp-train
CMD ["make", "demo"]

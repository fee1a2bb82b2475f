# One image for edge, admin and worker; docker-compose.yml gives the commands.
FROM python:3.13-slim

WORKDIR /opt/linkwire
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared ./shared
COPY edge ./edge
COPY admin ./admin
RUN pip install --no-cache-dir --no-deps --no-build-isolation --no-index . \
    && useradd --system --uid 10001 --home-dir /var/lib/linkwire --create-home linkwire

USER linkwire
ENV PYTHONUNBUFFERED=1 LINKWIRE_HOME=/var/lib/linkwire
VOLUME /var/lib/linkwire
EXPOSE 8000 8001 9000
CMD ["python", "-m", "edge"]

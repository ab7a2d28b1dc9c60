# The vault in production: `serve`. Configuration and keys come from the environment and mounted files (docs/configuration.md), never from the image.
FROM node:24-bookworm-slim AS packages
WORKDIR /vault
COPY package.json package-lock.json .npmrc ./
# Without the optional packages: the image has its own Node, and its database is elsewhere.
RUN npm ci --omit=dev --omit=optional --ignore-scripts

FROM node:24-bookworm-slim
WORKDIR /vault
# Owned by root and run by another account: the program cannot change itself.
COPY --from=packages /vault/node_modules ./node_modules
COPY package.json openapi.yaml ./
COPY migrations ./migrations
COPY src ./src
# Outside loopback `serve` demands CREDVAULT_TLS_CERT and CREDVAULT_TLS_KEY, or CREDVAULT_TLS_TERMINATED=1.
ENV HOST=0.0.0.0 PORT=7300
EXPOSE 7300
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=4s --start-period=15s --retries=3 \
  CMD ["node", "-e", "const e = process.env, tls = e.CREDVAULT_TLS_CERT ?? e.CREDVAULT_TLS_CERT_FILE, host = ['0.0.0.0', '::'].includes(e.HOST) ? '127.0.0.1' : e.HOST; require(tls ? 'https' : 'http').get({ host, port: e.PORT, path: '/healthz', rejectUnauthorized: false, timeout: 3000 }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('timeout', () => process.exit(1)).on('error', () => process.exit(1))"]
# --disable-sigusr1: a signal must not open the inspector. `migrate` runs as: docker run … node src/main.ts migrate
CMD ["node", "--disable-sigusr1", "src/main.ts", "serve"]

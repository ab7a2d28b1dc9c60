// The docs page: Swagger UI from the files of its npm package, under a policy that lets it load
// nothing else and call nothing but /openapi.json. It only shows: "try it out" is off, so nobody
// types a token into it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { FastifyInstance } from 'fastify';

const files = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
} as const;

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src " +
  "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const page = `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>credential-vault: API</title>
  <link rel="icon" href="/docs/favicon-32x32.png">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
`;

// The parts of Swagger UI that would take a token or choose another server are left out.
const start = `const nothing = () => () => null;
SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true,
  supportedSubmitMethods: [],
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: 'BaseLayout',
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  displayOperationId: true,
  showExtensions: true,
  plugins: [
    {
      wrapComponents: {
        AuthorizeBtnContainer: nothing,
        authorizeOperationBtn: nothing,
        ServersContainer: nothing,
      },
    },
  ],
});
`;

/**
 * Adds /docs and its files, and /openapi.json with the document that is handed in once all
 * operations are there.
 */
export function registerDocs(app: FastifyInstance, document: () => unknown): void {
  const folder = join(
    dirname(createRequire(import.meta.url).resolve('@fastify/swagger-ui/package.json')),
    'static',
  );
  const serve = (url: string, type: string, read: () => Buffer | string): void => {
    let body: Buffer | string | undefined;
    app.route({
      method: ['GET', 'HEAD'],
      url,
      config: { access: 'public' },
      handler: async (_request, reply) => {
        body ??= read();
        return reply
          .type(type)
          .headers({ 'Content-Security-Policy': policy, 'Cache-Control': 'no-cache' })
          .send(body);
      },
    });
  };
  serve('/docs', 'text/html; charset=utf-8', () => page);
  serve('/docs/start.js', 'text/javascript; charset=utf-8', () => start);
  for (const [file, type] of Object.entries(files))
    serve(`/docs/${file}`, type, () => readFileSync(join(folder, file)));
  serve('/openapi.json', 'application/json; charset=utf-8', () => JSON.stringify(document()));
}

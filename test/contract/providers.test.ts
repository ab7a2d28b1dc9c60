// The page of the catalogue is what its entries make, and says of each where it was read.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { oauthProviders } from '../../src/credentials/providers/catalogue.ts';
import { fixedSuffix } from '../../src/credentials/providers/fill.ts';
import { providersPage } from '../../src/cli/providers.ts';

const committed = readFileSync(join(import.meta.dirname, '../../docs/providers.md'), 'utf8');

t.test('docs/providers.md is what the entries make, byte by byte', async (t) => {
  t.equal(
    committed,
    providersPage(),
    'run `npm run -s vault -- providers > docs/providers.md`, then read the difference',
  );
});

t.test(
  'an entry without a fixed suffix says so, and each says where it was read',
  folded(async (t) => {
    const sections = new Map(
      committed
        .split(/^## /m)
        .slice(1)
        .map((section) => [section.split('\n', 1)[0], section]),
    );
    for (const entry of oauthProviders) {
      const section = sections.get(entry.name) ?? '';
      const templates = [entry.authorizationUrl, entry.tokenUrl, entry.refreshUrl];
      const isFixed =
        entry.hasDiscovery !== true &&
        templates.every((url) => url === undefined || fixedSuffix(url, entry) !== undefined);
      t.equal(section.includes('**no fixed suffix**'), !isFixed, entry.name);
      for (const { url, on } of entry.read)
        t.ok(section.includes(`Read ${on}: <${url}>`), `${entry.name}: ${url}`);
    }
  }),
);

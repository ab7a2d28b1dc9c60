// The docs page in a real browser: it shows every operation, under its policy, from the vault's own
// files and without a word to anybody else.
import t, { type Test as Tap } from 'tap';
import { findChromium, openPage } from '../helpers/browser.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const chromium = findChromium();
const isNeeded = process.env['VAULT_TEST_CI'] === 'true';

t.test('the page and its files come from the vault under a strict policy', async (t) => {
  const { call } = await startVault(t);
  const page = await call(null, 'GET', '/docs');
  t.equal(page.status, 200);
  t.match(page.headers['content-type'], /^text\/html/);
  for (const [, attribute, url = ''] of page.text.matchAll(/(src|href)="([^"]*)"/g)) {
    t.match(url, /^\/docs\//, `${attribute} stays here`);
    const { status, headers, text } = await call(null, 'GET', url);
    t.equal(status, 200, url);
    t.not(text, '', url);
    t.equal(headers['x-content-type-options'], 'nosniff', url);
    checkPolicy(t, String(headers['content-security-policy']));
  }
  checkPolicy(t, String(page.headers['content-security-policy']));
  t.notMatch(page.text, /<script>|<style|style=|\son[a-z]+=/, 'nothing inline');
});

t.test(
  'a browser shows every operation and has nothing to complain of',
  {
    skip:
      chromium === undefined && !isNeeded && 'there is no Chromium here: apt-get install chromium',
    timeout: 80_000,
  },
  async (t) => {
    if (chromium === undefined)
      throw new Error(
        'there is no Chromium here, and in CI this test must run: apt-get install chromium',
      );
    const { app } = await startVault(t);
    const origin = await app.listen({ port: 0, host: '127.0.0.1' });
    const page = await openPage(t, chromium);
    await page.open(`${origin}/docs#/credentials/createCredential`);
    const shown = (): Promise<string> =>
      page.evaluate(
        `[...document.querySelectorAll('.opblock-summary-operation-id')].map((each) => each.textContent).join(' ')`,
      ) as Promise<string>;
    const { paths, webhooks } = (await app.inject({ url: '/openapi.json' })).json() as Record<
      'paths' | 'webhooks',
      Record<string, Record<string, { operationId?: string }>>
    >;
    const expected = [...Object.values(paths), ...Object.values(webhooks)].flatMap((item) =>
      Object.values(item).flatMap(({ operationId }) => operationId ?? []),
    );
    for (const { operationId } of app.operations) t.ok(expected.includes(operationId), operationId);
    await until(async () => (await shown()).split(' ').length >= expected.length);
    t.same((await shown()).split(' ').sort(), expected.sort());
    await until(
      async () =>
        (await page.evaluate(
          `document.querySelector('.opblock.is-open')?.innerText.includes('your API key') ?? false`,
        )) as boolean,
    );
    t.equal(
      await page.evaluate(`document.querySelector('.opblock.is-open').id`),
      'operations-credentials-createCredential',
      'an address of one operation opens it',
    );
    t.equal(
      await page.evaluate(
        `document.querySelectorAll('.authorize, .authorization__btn, .try-out, input:not([disabled]), .servers').length`,
      ),
      0,
      'nothing takes a token, nothing sends',
    );
    t.match(
      await page.evaluate(`document.querySelector('.information-container').innerText`),
      /credential\.lease\s+engine/,
      'the table of access',
    );

    const requested = page.requested.filter((url) => !url.startsWith('data:'));
    t.ok(requested.includes(`${origin}/openapi.json`));
    t.same(
      requested.filter((url) => new URL(url).origin !== origin),
      [],
      'nobody else is asked',
    );
    t.same(page.complaints, []);
    await page.evaluate(
      `new Promise((resolve) => { const image = new Image(); image.onerror = image.onload = resolve; image.src = 'https://elsewhere.invalid/x.png'; })`,
    );
    await until(() =>
      page.complaints.some((each) => each.includes('policy: img-src https://elsewhere.invalid')),
    );
    t.pass('a violation of the policy would have been seen');
    const before = page.complaints.length;
    await page.evaluate(`console.error('planted')`);
    await until(() => page.complaints.slice(before).some((each) => each.includes('planted')));
    t.pass('and so would an error');
  },
);

function checkPolicy(t: Tap, policy: string): void {
  const directives = new Map(
    policy.split(';').map((each): [string, string[]] => {
      const [name = '', ...sources] = each.trim().split(' ');
      return [name, sources];
    }),
  );
  t.same(directives.get('default-src'), [`'none'`]);
  for (const name of ['base-uri', 'form-action', 'frame-ancestors'])
    t.same(directives.get(name), [`'none'`], name);
  for (const [name, sources] of directives) {
    for (const source of sources)
      t.ok(
        [`'none'`, `'self'`, ...(name === 'img-src' ? ['data:'] : [])].includes(source),
        `${name} ${source}`,
      );
  }
}

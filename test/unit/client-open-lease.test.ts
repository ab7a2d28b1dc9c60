// What an engine accepts as a lease: only what its vault signed, for it, now, and sealed to a key
// of its own.
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { CompactEncrypt, CompactSign, exportJWK } from 'jose';
import { test } from 'tap';
import {
  generateEngineKey,
  LeaseInvalid,
  openLease,
  type OpenLeaseOptions,
} from '../../src/client/index.ts';
import { readEngineKey } from '../../src/client/engine-key.ts';

const issuer = 'https://vault.test';
const audience = 'n8n';
const signer = generateKeyPairSync('ed25519');
const signerKid = 'the-vault-key';
const keys = {
  keys: [{ ...(await exportJWK(signer.publicKey)), kid: signerKid, alg: 'EdDSA', use: 'sig' }],
};
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const seconds = (): number => Math.floor(Date.now() / 1000);
const credential = {
  id: 'c',
  team: 'payments',
  name: 'openai-prod',
  type: 'openai',
  version: 3,
  fields: { apiKey: 'sk-canary' },
};
const claimsOf = (more: object = {}): object => ({
  iss: issuer,
  aud: audience,
  jti: 'l',
  iat: seconds(),
  exp: seconds() + 60,
  credentials: [credential],
  ...more,
});

const engine = generateEngineKey();
const { kid, privateKey } = readEngineKey(engine.privateJwk);
const options = (more: Partial<OpenLeaseOptions> = {}): OpenLeaseOptions => ({
  privateKeys: [engine.privateJwk],
  audience,
  vault: { issuer, keys },
  ...more,
});

const sign = (
  claims: object | string,
  { key = signer.privateKey, header = {} }: { key?: KeyObject | Uint8Array; header?: object } = {},
): Promise<string> =>
  new CompactSign(bytes(typeof claims === 'string' ? claims : JSON.stringify(claims)))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', kid: signerKid, ...header })
    .sign(key);
const seal = (
  signed: string,
  { to = engine.publicJwk as object, header = {} }: { to?: object; header?: object } = {},
): Promise<string> =>
  new CompactEncrypt(bytes(signed))
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', cty: 'JWT', kid, ...header })
    .encrypt(to as never);
const lease = async (more: object = {}): Promise<string> => seal(await sign(claimsOf(more)));

test('a lease of the vault opens, with keys of both kinds, as JWK and as KeyObject', async (t) => {
  for (const curve of ['X25519', 'P-256'] as const) {
    const pair = generateEngineKey(curve);
    const key = readEngineKey(pair.privateJwk);
    t.notOk('d' in pair.publicJwk);
    const sealed = await seal(await sign(claimsOf()), {
      to: pair.publicJwk,
      header: { kid: key.kid },
    });
    for (const given of [pair.privateJwk, key.privateKey]) {
      const opened = await openLease(sealed, options({ privateKeys: [engine.privateJwk, given] }));
      t.match(opened, { id: 'l', credentials: [{ ...credential, notModified: false }] });
      t.ok(opened.expiresAt.getTime() > Date.now());
    }
  }
  const { fields: _, ...known } = credential;
  t.strictSame(
    (await openLease(await lease({ credentials: [{ ...known, notModified: true }] }), options()))
      .credentials,
    [{ ...known, notModified: true }],
  );
});

test('everything else is refused by name, and nothing of it is repeated', async (t) => {
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const ecdsa = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const secret = randomBytes(32);
  const good = await lease();
  const [header, , iv, ciphertext, tag] = good.split('.') as [
    string,
    string,
    string,
    string,
    string,
  ];
  const flip = (part: string): string => (part.startsWith('A') ? 'B' : 'A') + part.slice(1);
  const unsigned = (claims: object): string =>
    `${Buffer.from('{"alg":"none","kid":"the-vault-key"}').toString('base64url')}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.`;
  const claims = claimsOf();
  const raw = signer.publicKey.export({ format: 'jwk' }).x ?? '';
  const cases: readonly (readonly [
    what: string,
    sealed: string,
    fault: string,
    more?: Partial<OpenLeaseOptions>,
  ])[] = [
    ['no token', 'not a lease', 'malformed'],
    ['empty', '', 'malformed'],
    ['only signed, not sealed', await sign(claims), 'malformed'],
    ['a signature that is not inside but beside', unsigned(claims), 'malformed'],
    [
      'sealed to another engine',
      await seal(await sign(claims), {
        to: generateEngineKey().publicJwk,
        header: { kid: 'other' },
      }),
      'notOurKey',
    ],
    [
      'sealed without a key id',
      await seal(await sign(claims), { header: { kid: undefined } }),
      'notOurKey',
    ],
    [
      'our key id, another key',
      await seal(await sign(claims), { to: generateEngineKey().publicJwk }),
      'notDecrypted',
    ],
    [
      'another content encryption',
      await seal(await sign(claims), { header: { enc: 'A128GCM' } }),
      'malformed',
    ],
    [
      'another key management',
      await seal(await sign(claims), { header: { alg: 'ECDH-ES+A256KW' } }),
      'malformed',
    ],
    [
      'another content type',
      await seal(await sign(claims), { header: { cty: 'text/plain' } }),
      'malformed',
    ],
    [
      'no content type',
      await seal(await sign(claims), { header: { cty: undefined } }),
      'malformed',
    ],
    ['a changed header', [flip(header), '', iv, ciphertext, tag].join('.'), 'malformed'],
    ['a changed nonce', [header, '', flip(iv), ciphertext, tag].join('.'), 'notDecrypted'],
    ['a changed ciphertext', [header, '', iv, flip(ciphertext), tag].join('.'), 'notDecrypted'],
    ['a changed tag', [header, '', iv, ciphertext, flip(tag)].join('.'), 'notDecrypted'],
    ['unsigned claims', await seal(JSON.stringify(claims)), 'malformed'],
    ['alg none', await seal(unsigned(claims)), 'notSigned'],
    ['signed by a stranger', await seal(await sign(claims, { key: stranger })), 'notSigned'],
    [
      'signed by a stranger under their own name',
      await seal(await sign(claims, { key: stranger, header: { kid: 'stranger' } })),
      'notSigned',
    ],
    [
      'signed with a key that it brings along',
      await seal(await sign(claims, { key: stranger, header: { jwk: await exportJWK(stranger) } })),
      'notSigned',
    ],
    [
      'signed without a key id',
      await seal(await sign(claims, { header: { kid: undefined } })),
      'notSigned',
    ],
    [
      'signed with HMAC',
      await seal(await sign(claims, { key: secret, header: { alg: 'HS256' } })),
      'notSigned',
    ],
    [
      'signed with HMAC under the public key',
      await seal(
        await sign(claims, { key: Buffer.from(raw, 'base64url'), header: { alg: 'HS256' } }),
      ),
      'notSigned',
    ],
    [
      'signed with another algorithm by a key of the set',
      await seal(
        await sign(claims, { key: ecdsa.privateKey, header: { alg: 'ES256', kid: 'ecdsa' } }),
      ),
      'notSigned',
      {
        vault: {
          issuer,
          keys: { keys: [...keys.keys, { ...(await exportJWK(ecdsa.publicKey)), kid: 'ecdsa' }] },
        },
      },
    ],
    [
      'changed claims',
      await seal(
        (await sign(claims)).replace(
          /\.[^.]+\./,
          `.${Buffer.from(JSON.stringify(claimsOf({ exp: seconds() + 9999 }))).toString('base64url')}.`,
        ),
      ),
      'notSigned',
    ],
    ['another vault', await lease({ iss: 'https://other.test' }), 'issuer'],
    ['no issuer', await lease({ iss: undefined }), 'issuer'],
    ['for another engine', await lease({ aud: 'zapier' }), 'audience'],
    ['for us and another', await lease({ aud: [audience, 'zapier'] }), 'audience'],
    ['for nobody', await lease({ aud: undefined }), 'audience'],
    ['expired', await lease({ exp: seconds() - 10 }), 'expired'],
    ['without expiry', await lease({ exp: undefined }), 'malformed'],
    ['from the future', await lease({ iat: seconds() + 60 }), 'notYet'],
    ['without a time', await lease({ iat: undefined }), 'malformed'],
    ['without an id', await lease({ jti: undefined }), 'malformed'],
    ['without credentials', await lease({ credentials: undefined }), 'malformed'],
    [
      'a credential without fields',
      await lease({ credentials: [{ ...credential, fields: undefined }] }),
      'malformed',
    ],
    ['claims that are no object', await seal(await sign('"sk-canary"')), 'notSigned'],
    ['no key of ours', good, 'notOurKey', { privateKeys: [] }],
    ['later', good, 'expired', { now: () => Date.now() + 120_000 }],
    ['keys of another vault', good, 'notSigned', { vault: { issuer, keys: { keys: [] } } }],
  ];
  for (const [what, sealed, fault, more] of cases) {
    const refusal: unknown = await openLease(sealed, options(more)).catch(
      (error: unknown) => error,
    );
    t.ok(refusal instanceof LeaseInvalid, `${what}: ${String(refusal)}`);
    if (!(refusal instanceof LeaseInvalid)) continue;
    t.equal(refusal.fault, fault, what);
    t.equal(refusal.message, `the lease is not valid (${fault})`);
    t.equal(refusal.cause, undefined);
  }
  t.match(await openLease(good, options()), { id: 'l' }, 'the good one is still good');
  t.ok(privateKey.type === 'private');
});

test('keys that cannot be fetched are no verdict on the lease', async (t) => {
  const unreachable = async (): Promise<never> => {
    throw new TypeError('fetch failed');
  };
  await t.rejects(
    openLease(await lease(), options({ vault: { issuer, keys: unreachable } })),
    TypeError,
  );
});

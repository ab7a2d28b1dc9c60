// The sealed form of a lease against jose and against the worked example of RFC 7518.
import {
  createHash,
  createPrivateKey,
  diffieHellman,
  createPublicKey,
  generateKeyPairSync,
} from 'node:crypto';
import { compactDecrypt, compactVerify, decodeProtectedHeader } from 'jose';
import t from 'tap';
import { contentKeyOf, recipientKey, signAndEncrypt } from '../../src/crypto/nested-jwt.ts';
import type { PublicJwk } from '../../src/engines/jwk.ts';

const signing = generateKeyPairSync('ed25519');
const signer = { kid: 'signer', privateKey: signing.privateKey };
const claims = Buffer.from(
  JSON.stringify({ iss: 'vault', text: 'ünïcødé', pad: 'x'.repeat(10_000) }),
);
const pairs = {
  X25519: generateKeyPairSync('x25519'),
  'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
};

for (const [curve, { publicKey, privateKey }] of Object.entries(pairs)) {
  t.test(`what is sealed to a ${curve} key is opened and verified by jose`, async (t) => {
    const sealed = signAndEncrypt(
      claims,
      signer,
      recipientKey('recipient', publicKey.export({ format: 'jwk' }) as unknown as PublicJwk),
    );
    const { kid, alg, enc, typ, cty, epk } = decodeProtectedHeader(sealed);
    t.strictSame(
      { kid, alg, enc, typ, cty },
      { kid: 'recipient', alg: 'ECDH-ES', enc: 'A256GCM', typ: 'JWT', cty: 'JWT' },
    );
    t.notHas(epk, { d: String }, 'the private half of the ephemeral key stays here');
    const { plaintext } = await compactDecrypt(sealed, privateKey);
    const { payload, protectedHeader } = await compactVerify(plaintext, signing.publicKey);
    t.strictSame(protectedHeader, { alg: 'EdDSA', typ: 'JWT', kid: 'signer' });
    t.ok(claims.equals(payload));
  });

  t.test(`two leases to one ${curve} key share neither ephemeral key nor iv`, async (t) => {
    const recipient = recipientKey(
      'recipient',
      publicKey.export({ format: 'jwk' }) as unknown as PublicJwk,
    );
    const sealed = Array.from({ length: 50 }, () => signAndEncrypt(claims, signer, recipient));
    t.equal(
      new Set(sealed.map((each) => JSON.stringify(decodeProtectedHeader(each).epk))).size,
      50,
    );
    t.equal(new Set(sealed.map((each) => each.split('.')[2])).size, 50);
  });

  t.test(
    `a changed character anywhere makes jose refuse what was sealed to a ${curve} key`,
    async (t) => {
      const sealed = signAndEncrypt(
        claims.subarray(0, 40),
        signer,
        recipientKey('recipient', publicKey.export({ format: 'jwk' }) as unknown as PublicJwk),
      );
      const segments = sealed.split('.');
      for (const at of [0, 2, 3, 4]) {
        const changed = segments
          .map((segment, i) =>
            i === at ? (segment.startsWith('A') ? 'B' : 'A') + segment.slice(1) : segment,
          )
          .join('.');
        await t.rejects(compactDecrypt(changed, privateKey), `segment ${at}`);
      }
    },
  );
}

t.test('the content key is derived as the RFC says', async (t) => {
  // RFC 7518, appendix C, has another algorithm and parties; its agreed secret, put through the
  // formula by hand, checks the rest.
  const alice = createPrivateKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: 'gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0',
      y: 'SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps',
      d: '0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo',
    },
  });
  const bob = createPublicKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: 'weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ',
      y: 'e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck',
    },
  });
  const agreed = diffieHellman({ privateKey: alice, publicKey: bob });
  t.strictSame([...agreed.subarray(0, 4)], [158, 86, 217, 29], 'Z of the appendix');
  const byHand = Buffer.concat([
    Buffer.from('00000001', 'hex'),
    agreed,
    Buffer.from('00000007', 'hex'),
    Buffer.from('A256GCM'),
    Buffer.from('000000000000000000000100', 'hex'),
  ]);
  t.equal(contentKeyOf(agreed).toString('hex'), createHash('sha256').update(byHand).digest('hex'));
});

// A self-signed certificate made on the spot, so that no private key is ever committed. Just enough
// DER for a P-256 server certificate.
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { isIPv4 } from 'node:net';

export interface TestCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** Valid from yesterday for a week, for the names and IPv4 addresses given; its own authority. */
export function testCertificate(
  names: readonly string[] = ['localhost', '127.0.0.1'],
): TestCertificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const day = 86_400_000;
  const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'));
  // A name of its own: among authorities of one name OpenSSL takes the first.
  const subject = sequence(
    set(
      sequence(
        oid('550403'),
        tagged(0x0c, Buffer.from(`credential-vault test ${randomBytes(8).toString('hex')}`)),
      ),
    ),
  );
  const alternatives = sequence(
    ...names.map((name) =>
      isIPv4(name)
        ? tagged(0x87, Buffer.from(name.split('.').map(Number)))
        : tagged(0x82, Buffer.from(name)),
    ),
  );
  const body = sequence(
    tagged(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ecdsaWithSha256,
    subject,
    sequence(time(Date.now() - day), time(Date.now() + 7 * day)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(
      0xa3,
      sequence(
        extension('551d13', sequence(tagged(0x01, Buffer.from([0xff])))), // CA
        extension('551d11', alternatives),
      ),
    ),
  );
  const signature = sign('sha256', body, privateKey);
  const der = sequence(
    body,
    ecdsaWithSha256,
    tagged(0x03, Buffer.concat([Buffer.from([0]), signature])),
  );
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/(.{64})(?=.)/g, '$1\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

function tagged(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const size =
    content.length < 0x80
      ? [content.length]
      : content.length < 0x100
        ? [0x81, content.length]
        : [0x82, content.length >> 8, content.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...parts: readonly Buffer[]): Buffer => tagged(0x30, ...parts);
const set = (...parts: readonly Buffer[]): Buffer => tagged(0x31, ...parts);
const oid = (hex: string): Buffer => tagged(0x06, Buffer.from(hex, 'hex'));
const integer = (bytes: Buffer): Buffer => tagged(0x02, bytes);
const time = (at: number): Buffer =>
  tagged(
    0x17,
    Buffer.from(
      new Date(at).toISOString().replace(/^..(..)-(..)-(..)T(..):(..):(..).*$/, '$1$2$3$4$5$6Z'),
    ),
  );
const extension = (id: string, value: Buffer): Buffer => sequence(oid(id), tagged(0x04, value));

// AWS Signature Version 4. Service and region come from the host, where it says them; the secret
// key signs and never travels.
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { clearCredentialCache, SignatureV4 } from '@smithy/signature-v4';
import { awsRegion, awsScope, type Scope } from './aws-hosts.ts';
import { BrokerRefusal } from './refusal.ts';
import type { AllFields } from '../credentials/index.ts';

/** What has to be signed whole, other than for S3, is read into memory up to this. */
export const signedBodyBytesMax = 1024 * 1024;

/** A request as it will go out; header names in lower case. */
export interface SignableRequest {
  readonly method: string;
  readonly host: string;
  readonly pathAndQuery: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Needed where `needsBody` says so. */
  readonly body?: Uint8Array;
  readonly at: Date;
}
/**
 * Headers to set, whatever the caller sent; and what redaction must look for beside the secrets
 * themselves.
 */
export interface Signed {
  readonly headers: Readonly<Record<string, string>>;
  readonly sensitive: readonly string[];
}
/** Throws BrokerRefusal `unsupported` where the host names no service. */
export interface Sign {
  (request: SignableRequest): Promise<Signed>;
  needsBody(host: string): boolean;
}

/**
 * Signs as the holder of `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`; `region`
 * counts where the host says none.
 */
export function signer(
  fields: AllFields,
  service: 's3' | undefined,
): { readonly sign: Sign; readonly sensitive: readonly string[] } {
  const text = (name: string): string | undefined =>
    typeof fields[name] === 'string' ? fields[name] : undefined;
  const sessionToken = text('sessionToken');
  const credentials = {
    accessKeyId: text('accessKeyId') ?? '',
    secretAccessKey: text('secretAccessKey') ?? '',
    ...(sessionToken === undefined ? {} : { sessionToken }),
  };
  const scopeOf = (host: string): Scope =>
    service === undefined
      ? awsScope(host, text('region'))
      : { service, region: awsRegion(host) ?? text('region') ?? 'us-east-1' };
  const sign = async (request: SignableRequest): Promise<Signed> => {
    const scope = scopeOf(request.host.replace(/:\d+$/, ''));
    const headers = await signatureHeaders(credentials, scope, request);
    return {
      headers,
      sensitive: [/Signature=([0-9a-f]+)$/.exec(headers['authorization'] ?? '')?.[1] ?? ''],
    };
  };
  return {
    sign: Object.assign(sign, { needsBody: (host: string) => scopeOf(host).service !== 's3' }),
    sensitive: [credentials.secretAccessKey, sessionToken ?? ''],
  };
}

interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

async function signatureHeaders(
  credentials: Credentials,
  scope: Scope,
  { method, host, pathAndQuery, headers, body, at }: SignableRequest,
): Promise<Record<string, string>> {
  const isS3 = scope.service === 's3';
  const [path = '', query = ''] = pathAndQuery.split(/\?(.*)/s);
  const signature = new SignatureV4({
    credentials,
    ...scope,
    sha256: Sha256,
    uriEscapePath: !isS3,
    applyChecksum: isS3,
  });
  const signed = {
    ...signable(headers),
    host,
    ...(isS3 ? { 'x-amz-content-sha256': payloadHash(headers) } : {}),
  };
  try {
    const answer = await signature.sign(
      {
        method,
        protocol: 'https:',
        hostname: host,
        path: isS3 ? canonicalPath(path) : path,
        query: parameters(query),
        headers: signed,
        ...(body === undefined ? {} : { body }),
      },
      { signingDate: at },
    );
    const { host: _host, ...out } = answer.headers;
    return out;
  } finally {
    // SECURITY: the package keeps derived keys otherwise, under names that hold session tokens
    clearCredentialCache();
  }
}

/** What is signed of the caller's headers: what no part on the way changes. */
function signable(headers: Readonly<Record<string, string>>): Record<string, string> {
  const isSigned = (name: string): boolean =>
    /^(?:content-type|content-md5|x-amz-.*)$/.test(name) && !replaced.has(name);
  return Object.fromEntries(Object.entries(headers).filter(([name]) => isSigned(name)));
}
const replaced: ReadonlySet<string> = new Set([
  'x-amz-date',
  'x-amz-security-token',
  'x-amz-content-sha256',
]);

/**
 * S3 takes a body that is not signed, over TLS: it can be streamed. The caller's own hash of it
 * goes along.
 */
function payloadHash({ 'x-amz-content-sha256': own }: Readonly<Record<string, string>>): string {
  if (own === undefined) return 'UNSIGNED-PAYLOAD';
  // Chunks that are signed one by one would need the caller to have the key.
  if (!/^(?:[0-9a-f]{64}|UNSIGNED-PAYLOAD|STREAMING-UNSIGNED-PAYLOAD-TRAILER)$/.test(own))
    throw new BrokerRefusal('unsupported');
  return own;
}

/** The path as S3 reads it, whatever of it was escaped. */
const canonicalPath = (path: string): string =>
  path
    .split('/')
    .map((segment) => encodeStrictly(decodeURIComponent(segment)))
    .join('/');
const encodeStrictly = (text: string): string =>
  encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );

/**
 * The query as the signature wants it: decoded, a name with several values as a list. Throws
 * BrokerRefusal `path`.
 */
function parameters(query: string): Record<string, string | string[]> {
  const values = new Map<string, string[]>();
  for (const part of query.split('&')) {
    if (part === '') continue;
    const at = part.indexOf('=');
    const [name, value] = at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
    try {
      const key = decodeURIComponent(name);
      values.set(key, [...(values.get(key) ?? []), decodeURIComponent(value)]);
    } catch {
      throw new BrokerRefusal('path'); // not percent-encoded UTF-8
    }
  }
  return Object.fromEntries(
    [...values].map(([name, all]) => [name, all.length === 1 ? all[0]! : all]),
  );
}

/** SHA-256, or HMAC-SHA256 where there is a key, in the shape that the package asks for. */
class Sha256 {
  readonly #hash: Hash | Hmac;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash =
      secret === undefined ? createHash('sha256') : createHmac('sha256', bytesOf(secret));
  }

  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(bytesOf(data));
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(new Uint8Array(this.#hash.digest()));
  }
  /** A hash is used once. */
  reset(): void {
    /* nothing is kept */
  }
}

function bytesOf(data: string | ArrayBuffer | ArrayBufferView): Buffer {
  if (typeof data === 'string') return Buffer.from(data);
  return data instanceof ArrayBuffer
    ? Buffer.from(data)
    : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

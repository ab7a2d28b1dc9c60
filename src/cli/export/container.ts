// The file of an export with secrets: one JWE a line, each to the recipient's key, numbered, the
// first and the last one about the others. docs/format.md is its page.
import type { KeyObject } from 'node:crypto';
import { compactDecrypt, CompactEncrypt, importJWK } from 'jose';
import type { Secret } from '../../crypto/index.ts';
import { OptionsUnfit } from '../target.ts';
import type { Recipient } from './recipient.ts';

/** What one line says, besides the export that it belongs to and its number. */
export interface Head {
  readonly kind: 'head';
  readonly format: 1;
  readonly team: string;
  readonly at: string;
  readonly reason: string;
}
/** A credential as the API takes it, with what it was. */
export interface ExportedCredential {
  readonly kind: 'credential';
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly description: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: 'enabled' | 'disabled';
  readonly expiresAt: string | null;
  readonly rotateAfter: string | null;
  readonly policy: object;
  readonly publicFieldNames: readonly string[];
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  readonly version: number;
}
export interface Unopened {
  readonly id: string;
  readonly name: string;
  readonly reason: 'undecryptable' | 'sealBroken' | 'keyNotUsable' | 'rootKeyMissing';
}
export interface End {
  readonly kind: 'end';
  readonly credentials: number;
  readonly unopened: readonly Unopened[];
}
export type Content = Head | ExportedCredential | End;

const algorithms = { alg: 'ECDH-ES+A256KW', enc: 'A256GCM' } as const;
const typ = 'credential-vault-export';

/** Seals the lines of one export, one after the other. */
export async function lineSealer(
  { kid, jwk }: Recipient,
  exportId: string,
): Promise<(content: Secret<Content>) => Promise<string>> {
  const key = await importJWK({ ...jwk }, algorithms.alg);
  let number = 0;
  return async (content) => {
    // SECURITY: plaintext is exposed here, into a buffer that is encrypted to the recipient's key
    // at once and then overwritten.
    const plaintext = Buffer.from(
      JSON.stringify({ export: exportId, line: number, ...content.expose() }),
    );
    try {
      const sealed = await new CompactEncrypt(plaintext)
        .setProtectedHeader({ ...algorithms, typ, kid })
        .encrypt(key);
      number += 1;
      return `${sealed}\n`;
    } finally {
      plaintext.fill(0);
    }
  };
}

/**
 * The credentials of a file, one after the other. Throws OptionsUnfit for a file that is not for
 * this key, and for one in which a line is missing, changed, doubled or of another export; before
 * the end of the iteration it is not sure that the file is whole.
 */
export async function* openLines(
  text: string,
  { kid, key }: { readonly kid: string; readonly key: KeyObject },
): AsyncGenerator<ExportedCredential, End, undefined> {
  let exportId: unknown;
  let [number, credentials, at] = [0, 0, 0];
  while (at < text.length) {
    const newline = text.indexOf('\n', at);
    const end = newline < 0 ? text.length : newline;
    const content = await openLine(text.slice(at, end), kid, key);
    at = end + 1;
    if (number === 0) exportId = content['export'];
    const isNext =
      content['export'] === exportId &&
      content['line'] === number &&
      (number === 0) === (content['kind'] === 'head');
    if (!isNext)
      throw new OptionsUnfit(
        `the file is not one whole export: line ${number + 1} does not belong there`,
      );
    if (number === 0 && content['format'] !== 1)
      throw new OptionsUnfit('the file is of another format than this version reads');
    number += 1;
    if (content['kind'] === 'end') {
      const last = content as unknown as End;
      if (last.credentials !== credentials || text.slice(at).trim() !== '')
        throw new OptionsUnfit(
          'the file is not one whole export: there is more or less in it than was written',
        );
      return last;
    }
    if (content['kind'] === 'credential') {
      credentials += 1;
      yield content as unknown as ExportedCredential;
    }
  }
  throw new OptionsUnfit('the file is not one whole export: its end is missing');
}

async function openLine(
  line: string,
  kid: string,
  key: KeyObject,
): Promise<Record<string, unknown>> {
  let plaintext: Uint8Array | undefined;
  try {
    const opened = await compactDecrypt(line, key, {
      keyManagementAlgorithms: [algorithms.alg],
      contentEncryptionAlgorithms: [algorithms.enc],
    });
    plaintext = opened.plaintext;
    if (opened.protectedHeader.kid === kid && opened.protectedHeader.typ === typ)
      return JSON.parse(Buffer.from(plaintext).toString('utf8')) as Record<string, unknown>;
  } catch {
    // SECURITY: one answer for whatever does not open.
  } finally {
    plaintext?.fill(0);
  }
  throw new OptionsUnfit('the file is no export that this key opens');
}

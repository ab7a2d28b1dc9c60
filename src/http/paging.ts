// Keyset pages with opaque, authenticated cursors. A cursor is good for one list with one set of
// filters and one caller.
import { createHash } from 'node:crypto';
import { canonicalJson, type Keyring } from '../crypto/index.ts';
import { AppError } from '../shared/errors.ts';
import type { JsonObject } from '../shared/json.ts';
import type { Page } from '../shared/paging.ts';
import { pageItemsDefault } from '../shared/limits.ts';
import { cursorOfStart } from './schemas.ts';

/** The list that a cursor belongs to: its name, its filters and its caller. */
export interface ListIdentity {
  readonly list: string;
  readonly subject: string;
  readonly filters: JsonObject;
}

const macBytes = 32;

/** Makes and reads cursors with the vault's cursor key. */
export class Cursors {
  readonly #keyring: Keyring;
  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** The page that a query asks for; throws invalidCursor for one that this list did not give. */
  page(
    query: { limit?: number | undefined; cursor?: string | undefined },
    identity: ListIdentity,
  ): Page {
    return {
      limit: query.limit ?? pageItemsDefault,
      after:
        query.cursor === undefined || query.cursor === cursorOfStart
          ? undefined
          : this.#read(query.cursor, identity),
    };
  }

  /**
   * Cuts `limit + 1` found rows to a page and makes the cursor of the next one; where fewer were
   * found because the search ended at `end`, from there.
   */
  cut<T>(
    rows: readonly T[],
    page: Page,
    identity: ListIdentity,
    keyOf: (row: T) => readonly string[],
    end?: readonly string[],
  ): { items: T[]; nextCursor: string | null } {
    const items = rows.slice(0, page.limit);
    const last = items.at(-1);
    const next = rows.length > page.limit && last !== undefined ? keyOf(last) : end;
    return { items, nextCursor: next === undefined ? null : this.#write(next, identity) };
  }

  #write(key: readonly string[], identity: ListIdentity): string {
    const payload = Buffer.from(JSON.stringify(key));
    const { version, mac } = this.#keyring.mac('cursor', message(payload, identity));
    const head = Buffer.alloc(2);
    head.writeUInt16BE(version);
    return Buffer.concat([head, mac, payload]).toString('base64url');
  }

  #read(text: string, identity: ListIdentity): readonly string[] {
    const bytes = Buffer.from(text, 'base64url');
    const payload = bytes.subarray(2 + macBytes);
    // SECURITY: a cursor carries sort keys that go into a query of the team; only our own are read.
    const holds =
      bytes.length > 2 + macBytes &&
      this.#keyring.verifyMac('cursor', message(payload, identity), {
        version: bytes.readUInt16BE(0),
        mac: bytes.subarray(2, 2 + macBytes),
      });
    if (!holds) throw new AppError('invalidCursor', 'The cursor does not belong to this list.');
    return JSON.parse(payload.toString('utf8')) as string[];
  }
}

function message(payload: Buffer, { list, subject, filters }: ListIdentity): Buffer {
  const identity = createHash('sha256')
    .update(canonicalJson([list, subject, filters]))
    .digest();
  return Buffer.concat([identity, payload]);
}

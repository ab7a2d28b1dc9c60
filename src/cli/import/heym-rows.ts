// Heym's credentials: rows whose config is a token under its ENCRYPTION_KEY.
import { keyOfPassphrase, openForeignToken } from '../../crypto/index.ts';
import { JsonRefused } from '../../shared/strict-json.ts';
import { OptionsUnfit } from '../target.ts';
import { type Foreign, named, ruleOf, wholeText } from './foreign.ts';
import type { TextFile } from './input.ts';
import { entriesOf, isMembers, NotJson, parseExact } from './json-entries.ts';

/** The rows of an array. Throws OptionsUnfit, NotJson. */
export function* heymCredentials({ text }: TextFile, key: string): Generator<Foreign> {
  let index = 0;
  for (const { key: name, text: entry } of entriesOf(text())) {
    if (name !== undefined) throw new OptionsUnfit('the file is no array of credentials');
    const nameless = { ...named({}, index), type: '', data: undefined };
    index += 1;
    if (entry === undefined) {
      yield { ...nameless, fault: 'tooLong' };
      continue;
    }
    let row: unknown;
    try {
      row = parseExact(entry);
    } catch (error) {
      if (!(error instanceof JsonRefused)) throw error;
      yield { ...nameless, fault: ruleOf(error) };
      continue;
    }
    if (!isMembers(row)) {
      yield { ...nameless, fault: 'no credential' };
      continue;
    }
    yield {
      ...named(row, index - 1),
      type: wholeText(row['type']) ?? '',
      ...opened(key, row['encrypted_config']),
    };
  }
}

/** One of Heym's rows, opened. */
export const heymCredential = (
  row: {
    readonly id: string;
    readonly name: string;
    readonly type: string;
    readonly encrypted_config: string;
  },
  key: string,
): Foreign => ({
  id: row.id,
  name: row.name,
  type: row.type,
  ...opened(key, row.encrypted_config),
});

/** Throws OptionsUnfit where there is none. */
export function encryptionKey(key: string | undefined): string {
  if (key === undefined || key === '')
    throw new OptionsUnfit('--key-file must name a file with the ENCRYPTION_KEY');
  return key;
}

function opened(key: string, token: unknown): Pick<Foreign, 'data' | 'fault'> {
  if (typeof token !== 'string') return { data: undefined };
  if (/^vault:/.test(token)) return { data: undefined, fault: 'reference' };
  try {
    const data = parseExact(openForeignToken([keyOfPassphrase(key)], token));
    return { data: isMembers(data) ? data : undefined };
  } catch (error) {
    if (error instanceof JsonRefused) return { data: undefined, fault: ruleOf(error) };
    if (error instanceof NotJson) return { data: undefined, fault: 'noJson' };
    return { data: undefined };
  }
}

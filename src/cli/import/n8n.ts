// Credentials of n8n: one file with all of them, one file each, or a folder of such files;
// decrypted, or under the instance's key.
import { DecryptionFailed, openSaltedText } from '../../crypto/index.ts';
import { JsonRefused } from '../../shared/strict-json.ts';
import { OptionsUnfit } from '../target.ts';
import { type Foreign, named, ruleOf, wholeText } from './foreign.ts';
import { type ImportInput, NotText, type TextFile } from './input.ts';
import { entriesOf, isMembers, type JsonEntry, NotJson, parseExact } from './json-entries.ts';

/** The credentials of a file or a folder. Throws OptionsUnfit for a key that is none. */
export function* n8nCredentials(input: ImportInput, key: string | undefined): Generator<Foreign> {
  const passphrase = key === undefined ? undefined : passphraseOf(key);
  for (const file of input.files()) {
    if ('fault' in file) {
      yield { id: file.name, name: file.name, type: '', data: undefined, fault: file.fault };
    } else if (input.kind === 'file') {
      yield* credentialsIn(file, passphrase);
    } else {
      // One file that cannot be read takes no other one along.
      let all: Foreign[];
      try {
        all = [...credentialsIn(file, passphrase)];
      } catch (error) {
        if (!(error instanceof NotJson || error instanceof NotText)) throw error;
        const fault = error instanceof NotJson ? 'noJson' : 'noText';
        all = [{ id: file.name, name: file.name, type: '', data: undefined, fault }];
      }
      yield* all;
    }
  }
}

/** The key itself, or n8n's own file with it. Throws OptionsUnfit. */
function passphraseOf(text: string): string {
  if (!/^\s*\{/.test(text)) return text;
  try {
    const settings = parseExact(text);
    const key = isMembers(settings) ? settings['encryptionKey'] : undefined;
    if (typeof key === 'string' && key !== '') return key;
  } catch {
    // Said below.
  }
  throw new OptionsUnfit('--key-file holds JSON without an encryptionKey');
}

function* credentialsIn(file: TextFile, key: string | undefined): Generator<Foreign> {
  const entries = entriesOf(file.text());
  const members: JsonEntry[] = [];
  let index = 0;
  for (const entry of entries) {
    if (entry.key === undefined) yield credentialOf(entry.text, index, key);
    // One object is one credential.
    else if (members.push(entry) > memberMax) throw new NotJson();
    index += 1;
  }
  if (members.length === 0) return;
  const isWhole = members.every(({ text }) => text !== undefined);
  const text = isWhole
    ? `{${members.map((member) => `${JSON.stringify(member.key)}:${member.text ?? ''}`).join()}}`
    : undefined;
  yield credentialOf(text, 0, key);
}
const memberMax = 200;

function credentialOf(text: string | undefined, index: number, key: string | undefined): Foreign {
  if (text === undefined) return { ...nameless(index), fault: 'tooLong' };
  let row: unknown;
  try {
    row = parseExact(text);
  } catch (error) {
    if (!(error instanceof JsonRefused)) throw error;
    return { ...nameless(index), ...nameIn(text, index), fault: ruleOf(error) };
  }
  if (!isMembers(row)) return { ...nameless(index), fault: 'no credential' };
  const about = { ...named(row, index), type: wholeText(row['type']) ?? '' };
  const { data } = row;
  if (isMembers(data)) return { ...about, data: withTokens(data) };
  if (typeof data !== 'string' || data === '') return { ...about, data: undefined };
  if (key === undefined)
    return { ...about, data: undefined, fault: 'encrypted (--key-file is needed)' };
  try {
    const opened = parseExact(openSaltedText(key, data));
    if (isMembers(opened)) return { ...about, data: withTokens(opened) };
  } catch (error) {
    if (error instanceof JsonRefused) return { ...about, data: undefined, fault: ruleOf(error) };
    if (!(error instanceof DecryptionFailed || error instanceof NotJson)) throw error;
  }
  return { ...about, data: undefined };
}

const nameless = (index: number): Foreign => ({
  ...named({}, index),
  type: '',
  data: undefined,
});
/** Who is meant by a text that is not read otherwise. */
function nameIn(text: string, index: number): { id: string; name: string } {
  const row: unknown = JSON.parse(text);
  return named(isMembers(row) ? row : {}, index);
}

/** What an OAuth provider gave, member by member. */
function withTokens({
  oauthTokenData: held,
  ...data
}: Readonly<Record<string, unknown>>): Record<string, unknown> {
  if (!isMembers(held)) return held === undefined ? data : { ...data, oauthTokenData: held };
  return {
    ...data,
    ...Object.fromEntries(
      Object.entries(held).map(([name, value]) => [`oauthTokenData.${name}`, value]),
    ),
  };
}

// What `export` of a vault has written, opened with the private half of the key that it was sealed
// to.
import { type ExportedCredential, openLines } from '../export/container.ts';
import { readPrivateKey } from '../export/recipient.ts';
import { OptionsUnfit } from '../target.ts';
import type { Report } from './store.ts';
import type { Translated } from './translate.ts';
import { findProvider, findType } from '../../credentials/service.ts';
import { writtenNames } from '../../credentials/providers/write-out.ts';

/**
 * The credentials of an export, one after the other. The file is read to its end before the first
 * of them is given, so that nothing is stored of one that is not whole. Throws OptionsUnfit.
 */
export async function exportSource(
  text: string,
  key: string | undefined,
  tell: (report: Report) => void,
): Promise<AsyncIterable<Translated>> {
  if (key === undefined)
    throw new OptionsUnfit(
      '--key-file must name the private half of the key that the export is sealed to',
    );
  const privateKey = readPrivateKey(key);
  const lines = openLines(text, privateKey);
  for (let line = await lines.next(); ; line = await lines.next()) {
    if (line.done !== true) continue;
    // What was left out there is missing here.
    for (const { id, name, reason } of line.value.unopened)
      tell({ id, name, type: '', action: 'failed', reason, fields: [] });
    break;
  }
  return (async function* () {
    for await (const credential of openLines(text, privateKey)) yield translatedOf(credential);
  })();
}

/**
 * What the other vault has written out of an entry of its catalogue. This one writes out its own:
 * the two may be of different releases.
 */
function writtenThere(type: string, fields: ExportedCredential['fields']): ReadonlySet<string> {
  const { provider } = fields;
  if (findType(type)?.oauth === undefined || typeof provider !== 'string') return new Set();
  const isDiscovered = findProvider(provider)?.hasDiscovery === true;
  return new Set(
    ['providerRevision', ...writtenNames].filter((name) => name !== 'issuer' || !isDiscovered),
  );
}

function translatedOf({
  id,
  name,
  type,
  fields,
  state,
  description,
  labels,
  expiresAt,
  rotateAfter,
  policy,
  publicFieldNames,
}: ExportedCredential): Translated {
  const known = findType(type);
  const classOf = (field: string): 'public' | 'secret' =>
    known?.fields[field]?.class ?? (publicFieldNames.includes(field) ? 'public' : 'secret');
  const written = writtenThere(type, fields);
  return {
    id,
    name,
    type,
    fields: Object.fromEntries(Object.entries(fields).filter(([field]) => !written.has(field))),
    notes: Object.keys(fields).map((field) =>
      written.has(field)
        ? { from: field, to: undefined, as: 'written' }
        : { from: field, to: field, as: classOf(field) },
    ),
    isDisabled: state === 'disabled',
    more: {
      description,
      labels,
      expiresAt,
      rotateAfter,
      policy,
      ...(known?.isOpen === true ? { publicFieldNames } : {}),
    },
  };
}

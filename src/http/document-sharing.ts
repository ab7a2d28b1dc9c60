// What many operations say alike stands in the document once, among its components.
import { type Json, ref } from './json-schemas.ts';

/**
 * Puts references in the place of parameters that several operations have, and returns what these
 * stand for. Of two that differ and have one name, the one that more operations have is named.
 */
export function nameParameters(paths: Readonly<Record<string, Json>>): Record<string, Json> {
  const operations = Object.values(paths).flatMap((item) => Object.values(item) as Json[]);
  const all = operations.flatMap(({ parameters = [] }) => parameters as Json[]);
  const counts = new Map<string, number>();
  for (const each of all) {
    if (each['$ref'] !== undefined) continue;
    const text = JSON.stringify(each);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const named = new Map<string, { readonly name: string; readonly parameter: Json }>();
  const byUse = [...counts].sort(([a, some], [b, more]) => more - some || (a < b ? -1 : 1));
  const taken = new Set<string>();
  for (const [text, count] of byUse) {
    const parameter = JSON.parse(text) as Json;
    const name = `${capital(String(parameter['name']))}In${capital(String(parameter['in']))}`;
    if (count < 2 || taken.has(name)) continue;
    taken.add(name);
    named.set(text, { name, parameter });
  }
  for (const operation of operations) {
    const { parameters } = operation as { parameters?: Json[] };
    if (parameters === undefined) continue;
    operation['parameters'] = parameters.map((each) => {
      const known = named.get(JSON.stringify(each));
      return known === undefined ? each : ref('parameters', known.name);
    });
  }
  return Object.fromEntries(
    [...named.values()]
      .map(({ name, parameter }): [string, Json] => [name, parameter])
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

const capital = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;

// Caches between the broker and its callers: the address of an answer does not say whose ticket it
// is for, and only for Authorization do caches know by themselves that it is somebody's. Pure.

/** What tells caches of one kind something else than Cache-Control says. */
export const steersCaches = (name: string): boolean =>
  /(?:^|-)cdn-cache-control$|^(?:surrogate|edge)-control$|^surrogate-key$/.test(name);

const directive = /\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=("(?:[^"\\]|\\.)*"|[^\s,"]*))?\s*(?:,|$)/y;

/** Cache-Control as it may leave: for no cache that several share. */
export function privateCaching(values: readonly string[]): string {
  const kept: string[] = ['private'];
  for (const value of values) {
    directive.lastIndex = 0;
    while (directive.lastIndex < value.length) {
      const [, name, said] = directive.exec(value) ?? [];
      // SECURITY: what cannot be read is kept by nobody.
      if (name === undefined) return 'private, no-store';
      if (/^(?:public|private|s-maxage)$/i.test(name)) continue;
      kept.push(said === undefined ? name : `${name}=${said}`);
    }
  }
  return kept.join(', ');
}

/** Vary with the headers by which callers differ. */
export function varying(values: readonly string[], names: readonly string[]): string {
  const listed = values
    .flatMap((value) => value.split(','))
    .map((name) => name.trim())
    .filter((name) => name !== '');
  if (listed.includes('*')) return '*';
  const lower = new Set(listed.map((name) => name.toLowerCase()));
  return [...listed, ...names.filter((name) => !lower.has(name))].join(', ');
}

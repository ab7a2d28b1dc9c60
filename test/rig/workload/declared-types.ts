// Types that the platform operator declares, removes, and declares again.
import type { OperatorLane } from './operator.ts';

interface Declared {
  readonly name: string;
  readonly title: string;
}
/** What each lane has declared, with the revision that it is named by. */
const declared = new WeakMap<OperatorLane, Declared[]>();
const declaredMax = 5;

const declarationOf = (title: string) => ({
  title,
  description: 'Of the rig.',
  fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
});

/** Declares a type of a new name. */
export async function putCredentialType(of: OperatorLane): Promise<boolean> {
  const all = declared.get(of) ?? [];
  if (all.length >= declaredMax) return false;
  const name = `rig.${of.lane.fresh('t').toLowerCase()}`;
  const title = of.lane.fresh('title');
  const { verdict } = await of.lane.change({
    operation: 'putCredentialType',
    as: 'operator',
    params: { type: name },
    body: declarationOf(title),
    effects: { [`type/${name}`]: { title } },
    events: { 'credentialType.declare': 1 },
    // Without If-Match a second one is refused, so that it is there.
    happened: ({ code }) => code === 'preconditionRequired',
  });
  if (verdict === 'done') declared.set(of, [...all, { name, title }]);
  return verdict === 'done';
}

/** Removes one of them. */
export async function deleteCredentialType(of: OperatorLane): Promise<boolean> {
  const [first, ...rest] = declared.get(of) ?? [];
  if (first === undefined) return false;
  declared.set(of, rest);
  const { verdict } = await of.lane.change({
    operation: 'deleteCredentialType',
    as: 'operator',
    params: { type: first.name },
    headers: { 'if-match': '*' },
    effects: { [`type/${first.name}`]: null },
    events: { 'credentialType.delete': 1 },
    happened: ({ code }) => code === 'notFound',
  });
  return verdict === 'done';
}

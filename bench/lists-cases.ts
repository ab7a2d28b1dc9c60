// What is asked of lists: every filter in the order of names, every order both ways, and filters
// with the orders of others.
import { orders, sortNames } from '../src/credentials/lists/sorts.ts';

const day = (days: number): string =>
  new Date(Math.floor(Date.now() / 1000) * 1000 + days * 86_400_000).toISOString();

export const filters = {
  type: 'type=openai',
  'type, rare': 'type=redis',
  label: 'label=env:prod',
  'label, rare': 'label=env:rare',
  'label, none': 'label=env:none',
  namePrefix: 'namePrefix=service-04',
  expiresBefore: `expiresBefore=${day(60)}`,
  dueBefore: `dueBefore=${day(30)}`,
  unusedSince: `unusedSince=${day(-700)}`,
  'unusedSince, many': `unusedSince=${day(-100)}`,
  updatedSince: `updatedSince=${day(-3)}`,
  disabled: 'problem=disabled',
  undecryptable: 'problem=undecryptable',
  exposed: 'problem=exposed',
  refreshFailed: 'problem=refreshFailed',
  expired: 'problem=expired',
  expiring: 'problem=expiring',
  deleted: 'deleted=true',
  'view=names': 'view=names',
  'view=names, prefix and type': 'view=names&namePrefix=service-0&type=openai',
} as const;

const sorted = sortNames.flatMap((sort) =>
  orders.map((order) => [`sort=${sort} ${order}`, `sort=${sort}&order=${order}`] as const),
);
const crossed = [
  ['due list', `dueBefore=${day(30)}&sort=dueAt`],
  ['unusedSince by lastUsedAt', `unusedSince=${day(-200)}&sort=lastUsedAt`],
  ['type by updatedAt', 'type=openai&sort=updatedAt&order=desc'],
  ['label by createdAt', 'label=env:prod&sort=createdAt&order=desc'],
  ['exposed by dueAt', 'problem=exposed&sort=dueAt'],
  ['undecryptable by lastUsedAt', 'problem=undecryptable&sort=lastUsedAt&order=desc'],
] as const;

/** By what it is called: the query, without the question mark. */
export const cases: readonly (readonly [string, string])[] = [
  ...sorted,
  ...Object.entries(filters),
  ...crossed,
];

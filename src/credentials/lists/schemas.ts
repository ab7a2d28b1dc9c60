// The shapes of lists of credentials on the wire.
import { shownType } from '../declared/names.ts';
import { z } from 'zod';
import {
  count,
  queryFlag,
  id,
  line,
  name,
  pageOf,
  pageQuery,
  slug,
  timeInput,
} from '../../http/schemas.ts';
import { invalid } from '../../shared/errors.ts';
import type { CredentialFilters } from './filters.ts';
import type { ProblemName } from '../health.ts';
import type { Listing } from './listing.ts';
import { credentialSeen, problemName, typeName } from '../schemas.ts';
import { orders, sortNames } from './sorts.ts';
import type { NameRow } from './sql.ts';

const label = z
  .string()
  .max(164)
  .regex(/^[a-z0-9][a-z0-9._/-]*:[^\p{Cc}\p{Cs}]*$/u, 'key:value');
const sort = z.enum(sortNames).meta({
  id: 'CredentialSort',
  description:
    'By `name` when left out. `createdAt` is the order of the ids. `lastUsedAt`: what was ' +
    'never used stands where it was made. `expiresAt` and `dueAt` list only what has such a ' +
    'time; ' +
    '`dueAt` is the earlier of `expiresAt` and `rotateAfter`.',
});
const view = z.enum(['names']).meta({
  description:
    '`names`: id, team, name and type only, by name, for completion; with `type`, `namePrefix` ' +
    'and `order` and no other filter.',
  examples: ['names'],
});

export const credentialListQuery = z.strictObject({
  ...pageQuery,
  type: typeName.optional(),
  label: z
    .union([label, z.array(label).max(5)])
    .optional()
    .meta({
      description: '`key:value`; may be repeated.',
      printedAs: z.array(label).max(5),
      examples: [['env:prod']],
    }),
  namePrefix: line(100)
    .min(1)
    .optional()
    .meta({ examples: ['openai-'] }),
  problem: problemName.optional(),
  expiresBefore: timeInput.optional(),
  dueBefore: timeInput
    .optional()
    .meta({ description: 'What expires, or whose secret should be replaced, before then.' }),
  unusedSince: timeInput.optional().meta({
    description:
      'Last used before then; or never, and made before then. Uses are counted with a delay of ' +
      'about a second: a hint.',
  }),
  updatedSince: timeInput.optional().meta({ description: 'Changed then or later.' }),
  sort: sort.optional(),
  order: z
    .enum(orders)
    .optional()
    .meta({ description: '`asc` when left out.', examples: ['asc'] }),
  view: view.optional(),
  shared: queryFlag.meta({
    description:
      'Only what a grant gives: to this team; without a team, to you or to one of yours.',
  }),
  deleted: queryFlag.meta({
    description: 'Only deleted ones, in the order of their ids (`sort=createdAt`).',
  }),
});
export type CredentialListQuery = z.output<typeof credentialListQuery>;

export const credentialPage = pageOf(credentialSeen).meta({ id: 'CredentialPage' });
export const credentialNames = pageOf(
  z.strictObject({ id, team: slug, name, type: typeName }).meta({ id: 'NamedCredential' }),
).meta({ id: 'CredentialNamePage' });
export const credentialList = z
  .union([credentialPage, credentialNames])
  .meta({ id: 'CredentialList', description: 'Credentials; with `view=names` names.' });

const problemCounts = z.strictObject({
  disabled: count,
  undecryptable: count,
  exposed: count,
  refreshFailed: count,
  notConnected: count,
  rejectedByUpstream: count,
  expired: count,
  expiring: count,
  providerOutdated: count,
} satisfies Record<ProblemName, unknown>);
export const teamProblems = z
  .strictObject({
    total: count.meta({ description: 'Living credentials.' }),
    problems: problemCounts.meta({
      description: 'How many of them have each problem; one may have several.',
    }),
  })
  .meta({ id: 'TeamProblems' });

const beyondNames = [
  'label',
  'problem',
  'expiresBefore',
  'dueBefore',
  'unusedSince',
  'updatedSince',
  'deleted',
] as const;

/** What a query asks for. Throws invalidRequest where one part of it excludes another. */
export function listingOf(query: CredentialListQuery): Listing {
  const { type, namePrefix, problem, order = 'asc' } = query;
  const isDeleted = query.deleted === true;
  if (query.view === 'names') {
    for (const member of beyondNames)
      if (query[member] !== undefined) throw invalid(`/query/${member}`, 'notWithView');
    if (query.sort !== undefined && query.sort !== 'name')
      throw invalid('/query/sort', 'notWithView');
  }
  if (isDeleted && query.sort !== undefined && query.sort !== 'createdAt')
    throw invalid('/query/sort', 'notWithDeleted');
  if (isDeleted && query.shared === true) throw invalid('/query/shared', 'notWithDeleted');
  const { label: labels = [] } = query;
  const filters: CredentialFilters = {
    type,
    namePrefix,
    problem,
    isDeleted,
    labels: typeof labels === 'string' ? [labels] : labels,
    expiresBefore: timeOf(query.expiresBefore),
    dueBefore: timeOf(query.dueBefore),
    unusedSince: timeOf(query.unusedSince),
    updatedSince: timeOf(query.updatedSince),
  };
  return {
    filters,
    order,
    sort: query.sort ?? (isDeleted ? 'createdAt' : 'name'),
    ...(query.shared === true ? { isShared: true } : {}),
  };
}

const timeOf = (text: string | undefined): Date | undefined =>
  text === undefined ? undefined : new Date(text);

export const showName = (row: NameRow): z.output<typeof credentialNames>['items'][number] => ({
  id: row.id,
  team: row.slug,
  name: row.name,
  type: shownType(row.type),
});

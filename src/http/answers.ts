// What a row shows as. A row that somebody wrote to past the service may hold what no answer can
// say: it is left out of lists, and by itself it is not there. Either way the alarm is raised.
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { notFound } from '../shared/errors.ts';
import { showOne } from '../shared/showing.ts';
import { Fitting } from './fitting.ts';
import { type AnyOperation, problemCodesOf } from './operation.ts';
import { actionOf, type TeamRef } from '../access/index.ts';

/**
 * Whether rows can be shown: asked before a change commits that answers with one. The value may be
 * of any shape, whatever its type says.
 */
export const canShow =
  <Row>(schema: z.ZodType, show: (row: Row) => unknown) =>
  (row: Row): boolean =>
    schema.safeParse(showOne(row, show)).success;

/** A row that could not be shown. */
export interface UnreadableRow {
  readonly action: string;
  readonly team: TeamRef | undefined;
  readonly target: { readonly type: string; readonly id: string };
  readonly requestId: string;
}

/** Fits every answer to a GET to its schema, or leaves out of it what does not fit. */
export function registerAnswers(
  app: FastifyInstance,
  { onUnreadable }: { onUnreadable: (row: UnreadableRow) => void },
): void {
  app.addHook('preSerialization', (request, reply, payload, done) => {
    const { operation } = request.routeOptions.config;
    if (operation?.method !== 'GET' || reply.statusCode !== operation.success.status) {
      done(null, payload);
      return;
    }
    const fitted = fit(operation, payload, (id) => {
      onUnreadable({
        action: actionOf(operation.access),
        team: request.resolved?.team,
        target: { type: 'row', id },
        requestId: request.id,
      });
    });
    if (fitted !== undefined) {
      done(null, fitted);
      return;
    }
    void reply.removeHeader('ETag');
    done(notFound());
  });
}

/** Undefined where the whole answer is one row that cannot be shown. */
function fit(
  operation: AnyOperation,
  payload: unknown,
  onUnreadable: (id: string) => void,
): unknown {
  const { schema } = operation.success;
  if (schema === undefined) return payload;
  const result = schema.safeParse(payload);
  if (result.success) return new Fitting(result.data);
  // What no row could be the cause of is a bug: the serializer refuses it.
  const isBug = result.error.issues.some(
    ({ code, path }) => code === 'unrecognized_keys' && path.length === 0,
  );
  if (isBug) return payload;
  const items = itemsOf(payload);
  const holding = (some: readonly unknown[]) =>
    schema.safeParse({ ...(payload as object), items: some });
  if (items.length > 0 && holding([]).success) {
    const good = items.filter((item) => holding([item]).success);
    for (const item of items) if (!good.includes(item)) onUnreadable(idOf(item));
    const rest = holding(good);
    if (rest.success) return new Fitting(rest.data);
  }
  if (!problemCodesOf(operation).includes('notFound')) return payload;
  onUnreadable(idOf(payload));
  return undefined;
}

const itemsOf = (payload: unknown): readonly unknown[] => {
  const items =
    typeof payload === 'object' && payload !== null
      ? (payload as { items?: unknown }).items
      : undefined;
  return Array.isArray(items) ? items : [];
};

const idMembers = ['id', 'slug', 'subject', 'credential', 'fingerprint', 'version'];

/**
 * By what a row is known that cannot be shown. SECURITY: only what has the form of a name; the row
 * is somebody else's word.
 */
function idOf(shown: unknown): string {
  if (typeof shown !== 'object' || shown === null) return 'unknown';
  const row = shown as Readonly<Record<string, unknown>>;
  const id = idMembers.map((member) => row[member]).find((value) => value !== undefined);
  return /^[\w.:@/-]{1,64}$/.test(String(id)) ? String(id) : 'unknown';
}

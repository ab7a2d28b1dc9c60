// ETag and If-Match (RFC 9110): the tag is the quoted revision; every change of an existing thing
// must say which one it means. Tags are compared by their value: a proxy that compresses makes them
// weak or puts the coding behind them, and the revision names the thing, not the bytes of an
// answer. And the form of both guards, If-Match and Idempotency-Key.
import type { FastifyReply, FastifyRequest } from 'fastify';
import { invalid } from '../shared/errors.ts';
import { type ExpectedRevision, preconditionRequired } from '../shared/revisions.ts';
import { keyForm } from './idempotency.ts';

const entityTag = '(?:W/)?"[\\x21\\x23-\\x7e\\x80-\\xff]*"';
const entityTags = new RegExp(`^${entityTag}(?:[ \\t]*,[ \\t]*${entityTag})*$`);
/** A revision as it was given out, with what proxies do to it. */
const revisionTags = /"([1-9][0-9]{0,9})(?:(?:--?|;)(?:gzip|br|zstd|deflate))?"/g;

/**
 * Looks at the guards that an operation declares, so that a malformed one is never passed over
 * because the request turns out not to need it. Throws invalidRequest.
 */
export function checkGuards(
  { headers }: Pick<FastifyRequest, 'headers'>,
  guards: { readonly ifMatch?: true | 'existing'; readonly idempotencyKey?: true } = {},
): void {
  const { 'if-match': tags, 'idempotency-key': key } = headers;
  if (guards.ifMatch !== undefined && tags !== undefined) readTags(tags);
  if (guards.idempotencyKey === true && key !== undefined && !keyForm.test(String(key)))
    throw invalid('/headers/Idempotency-Key', 'pattern');
}

/**
 * Reads If-Match. A tag that no revision can have is stale. Throws preconditionRequired, and
 * invalidRequest for what is no list of tags.
 */
export function expectedRevision(request: FastifyRequest): ExpectedRevision {
  return sentRevision(request) ?? raise(preconditionRequired());
}

/** The same where If-Match is asked for only of what is there already. */
export function sentRevision(request: FastifyRequest): ExpectedRevision | undefined {
  const header = request.headers['if-match'];
  return header === undefined ? undefined : readTags(header);
}

function readTags(text: string): ExpectedRevision {
  const header = text.trim();
  if (header === '*') return 'any';
  if (!entityTags.test(header)) throw invalid('/headers/If-Match', 'etag');
  return [...header.matchAll(revisionTags)].map(([, revision]) => Number(revision));
}

/** Sets the ETag of an answer. */
export function setEtag(reply: FastifyReply, revision: number): void {
  void reply.header('ETag', `"${revision}"`);
}

function raise(error: Error): never {
  throw error;
}

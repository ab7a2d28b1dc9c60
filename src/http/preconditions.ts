// ETag and If-Match (RFC 9110): the tag is the quoted revision; every change of an existing thing must say which one it means.
import type { FastifyReply, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';

/** Which revision the caller means; 'any' for `*`. Throws preconditionRequired or invalidRequest. */
export type ExpectedRevision = number | 'any' | 'none';

/** Reads If-Match. `none` means a tag that no revision can have: it is stale. */
export function expectedRevision(request: FastifyRequest): ExpectedRevision {
  const header = request.headers['if-match'];
  if (header === undefined || header.trim() === '') {
    throw new AppError('preconditionRequired', 'Send If-Match with the ETag that you read, or * for whatever it is.');
  }
  if (header.trim() === '*') return 'any';
  const tag = /^"([1-9][0-9]{0,9})"$/.exec(header.trim())?.[1];
  return tag === undefined ? 'none' : Number(tag);
}

/** Throws preconditionFailed unless the revision is the expected one. */
export function checkRevision(expected: ExpectedRevision, revision: number): void {
  if (expected !== 'any' && expected !== revision) throw new AppError('preconditionFailed', 'It has changed since you read it.');
}

/** Sets the ETag of an answer. */
export function setEtag(reply: FastifyReply, revision: number): void {
  void reply.header('ETag', `"${revision}"`);
}

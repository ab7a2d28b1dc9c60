// zod at fastify's two gates. A refusal names the place and the rule, never the value; an answer
// that does not fit its schema does not leave.
import type { z } from 'zod';
import { AppError, internal } from '../shared/errors.ts';
import { faultsOfIssues, pointerTo } from '../shared/input-faults.ts';
import { Fitting } from './fitting.ts';

const faultsMax = 20;

/**
 * Checks the input of one part of a request and returns what the schema makes of it; throws
 * invalidRequest.
 */
export function parseInput<T>(schema: z.ZodType<T>, data: unknown, part: string): T {
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const errors = faultsOfIssues(result.error.issues, { schema, data, part }).slice(0, faultsMax);
  throw new AppError('invalidRequest', 'The request breaks a rule.', { errors });
}

/** fastify's validator: throws nothing, hands the AppError on. */
export function validatorCompiler({ schema, httpPart }: { schema: z.ZodType; httpPart?: string }) {
  // A fault in the body is pointed at by plain JSON pointers; other parts are named first.
  const part =
    httpPart === 'body' || httpPart === undefined
      ? ''
      : `/${httpPart === 'querystring' ? 'query' : httpPart}`;
  return (data: unknown): { value: unknown } | { error: Error } => {
    try {
      return { value: parseInput(schema, data, part) };
    } catch (error) {
      return { error: error as Error };
    }
  };
}

/** fastify's serializer: strict; what is not in the schema is a bug (500) and not a leak. */
export function serializerCompiler({ schema }: { schema: z.ZodType }) {
  return (data: unknown): string => {
    if (data instanceof Fitting) return JSON.stringify(data.value);
    const result = schema.safeParse(data);
    if (!result.success) {
      // SECURITY: the issues' own texts can quote values; only places and rules go on.
      const places = result.error.issues
        .map((issue) => `${pointerTo(issue.path)} ${issue.code}`)
        .join(', ');
      throw internal(new ResponseDoesNotFit(places));
    }
    return JSON.stringify(result.data);
  };
}

/** An answer that its schema refuses; its code names the places, so that the log shows them. */
export class ResponseDoesNotFit extends Error {
  readonly code: string;
  constructor(places: string) {
    super('the response does not fit its schema');
    this.name = 'ResponseDoesNotFit';
    this.code = places.slice(0, 300);
  }
}

/** fastify wraps what a validator returns; this takes the AppError out again. */
export function schemaErrorFormatter(errors: unknown, _part: string): Error {
  return errors instanceof Error
    ? errors
    : new AppError('invalidRequest', 'The request breaks a rule.');
}

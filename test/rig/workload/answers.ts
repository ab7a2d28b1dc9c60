// What an answer says about the change that was asked for.
import { type Answered, passingCodes } from '../client.ts';

/** What an answer says of the change that was asked for. */
export function outcomeOf({ outcome, status = 0, code }: Answered): 'done' | 'refused' | 'open' {
  if (outcome === 'notSent') return 'refused';
  if (outcome === 'none') return 'open';
  if (status < 400) return 'done';
  // 500 says nothing of what happened; it is a fault by itself.
  return code === 'commitUnknown' || status === 500 ? 'open' : 'refused';
}

/** The result of one part of a request, as if it had been asked by itself. */
export function partOf(whole: Answered, place: number): Answered {
  if (whole.status !== 200) return whole;
  const result = whole.json?.results?.[place];
  const code = result?.problem?.code;
  const json = { results: [result] };
  return {
    ...whole,
    json,
    status: Number(result?.status),
    ...(code === undefined ? {} : { code }),
  };
}

/** Whether the refusal is about the moment and not about the request. */
export function isPassing({ outcome, code, status }: Answered): boolean {
  // 401: the replica's clock jumped between the making of the token and its reading.
  return outcome === 'notSent' || status === 401 || passingCodes.includes(code ?? '');
}

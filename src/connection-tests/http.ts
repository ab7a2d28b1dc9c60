// Asks the type's own question over HTTP: through the type's own injection, to its own upstream.
import type { Answer } from '../egress/index.ts';
import { TestFailed } from './report.ts';
import type { ConnectionTarget } from './target.ts';
import {
  BrokerRefusal,
  hostHeader,
  originText,
  render,
  targetOf,
  upstreamPath,
} from '../broker/index.ts';
import type { CredentialType, HttpTest, Policy } from '../credentials/index.ts';

const responseBytesMax = 4 * 1024 * 1024;

/** 2xx is good, and what the test takes besides. Throws TestFailed, EgressFailed. */
export async function testHttp(
  target: ConnectionTarget,
  type: CredentialType,
  policy: Policy,
  test: HttpTest,
): Promise<void> {
  const { egress, fields, team, timeoutMs, wire } = target;
  const { url, headers } = await prepare(type, fields, policy, test, target.now());
  wire.isTls = url.startsWith('https:');
  const answer = await egress.request({
    url,
    method: test.method,
    headers,
    team,
    timeoutMs,
    responseBytesMax,
    ...(test.body === undefined ? {} : { body: JSON.stringify(test.body) }),
  });
  const outcome = outcomeOf(answer, test);
  if (outcome !== 'ok') throw new TestFailed('login', outcome);
}

/** A value that does not fit its place in a request could not log in anywhere. */
async function prepare(
  type: CredentialType,
  fields: ConnectionTarget['fields'],
  policy: Policy,
  test: HttpTest,
  now: number,
): Promise<{ url: string; headers: Record<string, string> }> {
  try {
    const rendered = render(type, fields);
    // SECURITY: no host is handed in: the target is the type's own, the version's own destination,
    // or the one host of the test.
    const isOwn = test.baseUrl === undefined || fields['endpoint'] !== undefined;
    const target = isOwn
      ? targetOf(type, fields, policy, undefined)
      : targetOf(fixed(type, filled(test.baseUrl, type, fields)), fields, policy, undefined);
    const path = upstreamPath(target, filled(test.path, type, fields), rendered.path);
    const headers = {
      ...rendered.defaults,
      ...(test.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...test.headers,
      ...rendered.headers,
    };
    const signed = await rendered.sign?.({
      method: test.method,
      host: hostHeader(target.origin),
      pathAndQuery: path,
      headers,
      at: new Date(now),
    });
    return {
      url: `${originText(target.origin)}${path}`,
      headers: { ...headers, ...signed?.headers },
    };
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    throw error.reason === 'host'
      ? new TestFailed('name', 'failed')
      : new TestFailed('login', 'failed');
  }
}

const fixed = (type: CredentialType, baseUrl: string): CredentialType =>
  type.broker === undefined
    ? type
    : { ...type, broker: { ...type.broker, upstream: { kind: 'fixed', baseUrl } } };

/**
 * The text with the values of public fields in place of their names. SECURITY: a secret stands only
 * where the type's injection puts it.
 */
function filled(text: string, type: CredentialType, fields: ConnectionTarget['fields']): string {
  return text.replaceAll(
    /\{([A-Za-z0-9_]+)(?:=([^}]*))?\}/g,
    (_all, name: string, standard = '') =>
      type.fields[name]?.class === 'public' && fields[name] !== undefined
        ? encodeURIComponent(String(fields[name]))
        : (standard as string),
  );
}

/**
 * What an answer says of the log-in. Services say in many ways that a key is not theirs; but that
 * there is nothing at a path, or that one asks too often, says nothing about it.
 */
function outcomeOf({ status, body }: Answer, test: HttpTest): 'ok' | 'refused' | 'unexpected' {
  if (status >= 200 && status < 300)
    return test.refusal === undefined ? 'ok' : ofMember(body, test.refusal);
  if (test.accepted?.includes(status) === true) return 'ok';
  if (status === 403 && test.acceptedText !== undefined && body.includes(test.acceptedText))
    return 'ok';
  const isRefusal = refusals.includes(status) || test.refused?.includes(status) === true;
  return isRefusal ? 'refused' : 'unexpected';
}
const refusals: readonly number[] = [400, 401, 403];

function ofMember(
  body: Buffer,
  { member, by }: NonNullable<HttpTest['refusal']>,
): 'ok' | 'refused' | 'unexpected' {
  let answer: unknown;
  try {
    answer = JSON.parse(body.toString('utf8'));
  } catch {
    return 'unexpected'; // what is no JSON is not the service
  }
  if (typeof answer !== 'object' || answer === null) return 'unexpected';
  const value = Object.hasOwn(answer, member)
    ? (answer as Record<string, unknown>)[member]
    : undefined;
  if (by === 'presence') return value === undefined ? 'ok' : 'refused';
  if (value === true) return 'ok';
  return value === false ? 'refused' : 'unexpected';
}

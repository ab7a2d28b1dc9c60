// Asks the type's own question over HTTP: through the type's own injection, to its own upstream.
import { render } from '../broker/injection.ts';
import { BrokerRefusal } from '../broker/refusal.ts';
import { originText, targetOf, upstreamPath } from '../broker/target.ts';
import type { ConnectionTest, CredentialType, Policy } from '../credentials/service.ts';
import type { Answer } from '../egress/index.ts';
import { TestFailed } from './report.ts';
import type { ConnectionTarget } from './target.ts';

const responseBytesMax = 4 * 1024 * 1024;

/** 2xx is good. Throws TestFailed, EgressFailed. */
export async function testHttp(
  target: ConnectionTarget,
  type: CredentialType,
  policy: Policy,
  { method, path }: Extract<ConnectionTest, { kind: 'http' }>,
): Promise<void> {
  const { egress, fields, team, timeoutMs, wire } = target;
  const { url, headers } = prepare(type, fields, policy, path);
  wire.isTls = url.startsWith('https:');
  const { status } = await egress.request({
    url,
    method,
    headers,
    team,
    timeoutMs,
    responseBytesMax,
  });
  if (!isGood(status)) throw new TestFailed('login', isRefusal(status) ? 'refused' : 'unexpected');
}

/** A value that does not fit its place in a request could not log in anywhere. */
function prepare(
  type: CredentialType,
  fields: ConnectionTarget['fields'],
  policy: Policy,
  path: string,
): { url: string; headers: Record<string, string> } {
  try {
    const rendered = render(type, fields);
    // SECURITY: no host is handed in: the target is the type's own or the version's own
    // destination.
    const target = targetOf(type, fields, policy, undefined);
    return {
      url: `${originText(target.origin)}${upstreamPath(target, path, rendered.path)}`,
      headers: { ...rendered.defaults, ...rendered.headers },
    };
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    throw error.reason === 'host'
      ? new TestFailed('name', 'failed')
      : new TestFailed('login', 'failed');
  }
}

const isGood = (status: Answer['status']): boolean => status >= 200 && status < 300;
/**
 * Services say in many ways that a key is not theirs (400, 401, 403, 404); 408 and 429 say nothing
 * about it.
 */
const isRefusal = (status: number): boolean =>
  status >= 400 && status < 500 && status !== 408 && status !== 429;

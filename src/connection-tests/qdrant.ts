// Lists the collections of a Qdrant server.
import { TestFailed } from './report.ts';
import { type ConnectionTarget, reach } from './target.ts';

const responseBytesMax = 4 * 1024 * 1024;

/** Throws TestFailed, EgressFailed. */
export async function testQdrant(target: ConnectionTarget): Promise<void> {
  const { egress, fields, team, timeoutMs, wire } = target;
  const { host, port, isAllowedPlain } = await reach(target);
  // SECURITY: the key goes without TLS only where the operator has named the target.
  wire.isTls = !isAllowedPlain;
  const { status } = await egress.request({
    url: `${isAllowedPlain ? 'http' : 'https'}://${host}:${port}/collections`,
    method: 'GET',
    team,
    timeoutMs,
    responseBytesMax,
    headers: fields['apiKey'] === undefined ? {} : { 'api-key': String(fields['apiKey']) },
  });
  if (status === 401 || status === 403) throw new TestFailed('login', 'refused');
  if (status !== 200) throw new TestFailed('login', 'unexpected');
}

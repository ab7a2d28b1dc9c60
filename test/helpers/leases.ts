// Engines in a test vault: registered with keys of their own, members of teams, leasing and opening
// as an engine does.
import { briefRule } from './faults.ts';
import {
  generateEngineKey,
  type EnginePrivateKey,
  type OpenedLease,
  openLease,
} from '../../src/client/index.ts';
import type { Answer, TestVault } from './vault.ts';

/** What `startVault` calls itself. */
export const vaultIssuer = 'https://vault.test';

export interface TestEngine {
  readonly id: string;
  readonly sub: string;
  readonly privateKeys: EnginePrivateKey[];
}

/** Registers an engine with one key. */
export async function registerEngine(
  vault: TestVault,
  sub: string,
  curve: 'X25519' | 'P-256' = 'X25519',
): Promise<TestEngine> {
  const { publicJwk, privateJwk } = generateEngineKey(curve);
  const { id } = await demand(
    vault.call('operator', 'POST', '/v1/engines', {
      name: `the engine ${sub}`,
      subject: sub,
      keys: [publicJwk],
    }),
    201,
  );
  return { id, sub, privateKeys: [privateJwk] };
}

/** Stores an OpenAI key; its metadata. */
export async function storeOpenai(
  vault: TestVault,
  team: string,
  name: string,
  apiKey: string,
  more: object = {},
  by = 'alice',
): Promise<any> {
  return demand(
    vault.call(by, 'POST', `/v1/teams/${team}/credentials`, {
      name,
      type: 'openai',
      fields: { apiKey },
      ...more,
    }),
    201,
  );
}

/**
 * Asks for a lease; `purpose` is there, `onBehalfOf` is alice unless said otherwise (null leaves it
 * out).
 */
export function askLease(
  vault: TestVault,
  engine: string,
  credentials: readonly object[],
  { onBehalfOf = 'alice', ...more }: { onBehalfOf?: string | null } & Record<string, unknown> = {},
): Promise<Answer> {
  return vault.call(engine, 'POST', '/v1/leases', {
    credentials,
    purpose: 'a test',
    ...(onBehalfOf === null ? {} : { onBehalfOf }),
    ...more,
  });
}

/** Opens what a lease answered, as the engine. */
export async function openAnswer(
  vault: TestVault,
  engine: TestEngine,
  answer: Answer,
): Promise<OpenedLease> {
  if (answer.status !== 201) throw new Error(`no lease: ${answer.text}`);
  const keys = (await vault.call(null, 'GET', '/.well-known/jwks.json')).json;
  return openLease(answer.json.sealed, {
    privateKeys: engine.privateKeys,
    audience: engine.sub,
    vault: { issuer: vaultIssuer, keys },
    now: () => Date.now() + vault.clock.ms,
  });
}

/** The rules that a refused lease names, as `pointer rule`. */
export function rulesOf(answer: Answer): string[] {
  return (answer.json.errors ?? []).map(
    (fault: { pointer: string; rule: string }) => `${fault.pointer} ${briefRule(fault)}`,
  );
}

/** The answer's body, or an error that shows it. */
export async function demand(answer: Promise<Answer>, status: number): Promise<any> {
  const { status: got, text, json } = await answer;
  if (got !== status) throw new Error(`expected ${status}, got ${got}: ${text}`);
  return json;
}

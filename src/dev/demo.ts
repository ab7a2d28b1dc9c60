// `npm run demo`: a vault of its own in a temporary folder on a free port, the whole story played
// with real calls, and nothing left.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type LocalConfig, readConfig } from '../config/config.ts';
import { openDatabase } from '../db/client.ts';
import { growthLimits } from '../shared/growth.ts';
import { isRoot } from './account.ts';
import { play } from './demo-acts.ts';
import { NotAsTold, Stage } from './demo-stage.ts';
import { type DemoUpstream, startDemoUpstream } from './demo-upstream.ts';
import { startLocal } from './run.ts';

export interface DemoParts {
  readonly write: (text: string) => void;
  /** Aborted when the process is asked to stop: the demo ends there, and cleans up. */
  readonly stop: AbortSignal;
  readonly processId: number;
  readonly logger: Logger;
  /** Where postgres and initdb are, when not those that npm brings are meant. */
  readonly postgresBinFolder?: string | undefined;
}

/** Plays the demo and cleans up, whatever happens; the exit code: 0 when everything was as told. */
export async function runDemo(parts: DemoParts): Promise<number> {
  const { write, stop } = parts;
  const folder = mkdtempSync(join(tmpdir(), 'vault-demo-'));
  if (isRoot()) chmodSync(folder, 0o711); // root's server runs as nobody, who must pass through
  try {
    await perform(folder, parts);
    write('\nEverything was as told. The vault, its database and its keys are gone again.\n');
    return 0;
  } catch (error) {
    if (stop.aborted) write('\nStopped.\n');
    else if (error instanceof NotAsTold) write(`\nNOT AS TOLD: ${error.message}\n`);
    else throw error;
    return 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function perform(
  folder: string,
  { write, stop, processId, logger, postgresBinFolder }: DemoParts,
): Promise<void> {
  write('Starting a vault with a PostgreSQL of its own …\n');
  const upstream = await startDemoUpstream();
  const vault = await startLocal(configOf(folder, postgresBinFolder, upstream), {
    logger,
    processId,
  }).catch(async (error: unknown) => {
    await upstream.stop();
    throw error;
  });
  // a statement that needs the connection reports its loss
  const database = openDatabase({ url: vault.databaseUrl, poolMax: 2, onError: () => undefined });
  try {
    write(
      `It runs on ${vault.url}. Every call below is a real one; each line with ✓ was checked.\n`,
    );
    await play(new Stage({ url: vault.url, dataFolder: vault.dataFolder, write, stop }), {
      db: database.db,
      url: vault.url,
      upstream,
    });
  } finally {
    await database.close();
    await vault.stop();
    await upstream.stop();
  }
}

function configOf(
  dataFolder: string,
  postgresBinFolder: string | undefined,
  { allow }: DemoUpstream,
): LocalConfig {
  const { egress } = readConfig({ CREDVAULT_EGRESS_ALLOW: allow }, 'local', () => '').config;
  return {
    mode: 'local',
    host: '127.0.0.1',
    port: 0,
    logLevel: 'fatal',
    operators: [],
    tokenFormat: 'fernet',
    poolMax: 16,
    namedStatements: true,
    rateLimits: { address: 0, subject: 0 },
    growthLimits,
    publicUrl: undefined,
    broker: { listen: { host: '127.0.0.1', port: 0 }, publicUrl: undefined },
    egress,
    brokerCallsMax: 100,
    oauthRedirectUri: undefined,
    dataFolder,
    postgresBinFolder,
  };
}

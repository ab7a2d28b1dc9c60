// `local`: the same vault with keys and a PostgreSQL of its own under one folder, on loopback. For
// trying it and for development.
import { rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { migrate } from '../db/migrate.ts';
import { type RunningVault, startVault } from '../serve.ts';
import { localKeys, postgresFolder } from './keys.ts';
import { startLocalPostgres } from './postgres.ts';
import { issuerOf } from '../access/index.ts';
import { localAudience, localIssuer } from './token.ts';
import type { LocalConfig } from '../config/index.ts';

/** The file by which other commands find the running vault. */
export const runFile = 'run.json';

export interface LocalVault extends RunningVault {
  readonly dataFolder: string;
  readonly databaseUrl: string;
}

/**
 * Starts the embedded PostgreSQL, migrates, starts the vault and leaves run.json. Throws
 * DataFolderBusy, LocalKeysInvalid.
 */
export async function startLocal(
  config: LocalConfig,
  { logger, processId }: { logger: Logger; processId: number },
): Promise<LocalVault> {
  const dataFolder = resolve(config.dataFolder);
  const keys = localKeys(dataFolder);
  const postgres = await startLocalPostgres({
    folder: postgresFolder(dataFolder),
    ...(config.postgresBinFolder === undefined ? {} : { binFolder: config.postgresBinFolder }),
  });
  try {
    await migrate(postgres.url);
    const vault = await startVault({
      config,
      databaseUrl: postgres.url,
      rootKeys: keys.rootKeys,
      operators: [...config.operators, 'operator'],
      tls: undefined,
      trustedProxies: [],
      logger,
      issuers: [
        issuerOf({
          issuer: localIssuer,
          audience: localAudience,
          keys: { kind: 'secret', secret: keys.jwtSecret },
        }),
      ],
    });
    const path = join(dataFolder, runFile);
    writeFileSync(
      path,
      `${JSON.stringify({ url: vault.url, databaseUrl: postgres.url, processId }, null, 2)}\n`,
      { mode: 0o600 },
    );
    return {
      url: vault.url,
      brokerUrl: vault.brokerUrl,
      dataFolder,
      databaseUrl: postgres.url,
      stop: async () => {
        rmSync(path, { force: true });
        await vault.stop();
        await postgres.stop();
      },
    };
  } catch (error) {
    await postgres.stop();
    throw error;
  }
}

// What a run happens in: two database servers, lines that can be harmed, replicas with clocks of
// their own, and the services that credentials are for.
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateRootKey } from '../../src/crypto/index.ts';
import { migrate } from '../../src/db/migrate.ts';
import { command } from '../helpers/database.ts';
import { audience, issuer, type Signer, sharedSecret } from '../helpers/identity.ts';
import { statementsWith } from '../helpers/operations-page.ts';
import { Bouncer, hasBouncer } from './bouncer.ts';
import { faketimeLibrary, SkewedClock } from './clock.ts';
import { Peers } from './peers.ts';
import { debianBinaries } from './postgres/node.ts';
import { PostgresPair } from './postgres/pair.ts';
import { Line } from './postgres/proxy.ts';
import { type Ended, type LogLine, Replica } from './replica.ts';

/** Where people come back to from a provider of OAuth 2.0. */
export const platformPage = 'https://platform.rig/connected';
export const vaultUrl = 'https://vault.rig';

/** A replica and what it reaches its database by. */
export interface Station {
  readonly replica: Replica;
  /** One to each server, in their order. */
  readonly lines: readonly [Line, Line];
  /** In front of the lines, where this replica has pgbouncer. */
  readonly bouncers: readonly Bouncer[];
}

export interface Setting {
  readonly folder: string;
  readonly pair: PostgresPair;
  readonly stations: readonly Station[];
  readonly peers: Peers;
  readonly secret: Signer;
  /** All root keys, the primary one first. */
  readonly rootKeys: string;
  /** Of the vault's own role, past every proxy, for whatever the checker opens. */
  databaseUrl(user: 'rig' | 'credvault_app'): string;
  stop(): Promise<void>;
}

/** What a machine lacks for a rig; empty where it can run. */
export function missingParts(): string[] {
  return [
    ...(debianBinaries() === undefined ? ['postgresql-15'] : []),
    ...(hasBouncer() ? [] : ['pgbouncer']),
    ...(faketimeLibrary() === undefined ? ['libfaketime'] : []),
  ];
}

const database = 'credvault';
const replicaCount = 3;
const subjectCount = 100_000;

/** Makes all of it; the replicas run when it returns. */
export async function makeSetting(watch: {
  onLog(replica: string, line: LogLine): void;
  onExit(replica: string, ended: Ended): void;
}): Promise<Setting> {
  const folder = mkdtempSync(join(tmpdir(), 'vault-rig-'));
  chmodSync(folder, 0o711);
  const endings: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
  const stop = async (): Promise<void> => {
    for (const end of endings.reverse()) await end();
  };
  try {
    const pair = await PostgresPair.start(join(folder, 'postgres'), debianBinaries()!);
    endings.push(() => pair.stop());
    const databaseUrl = (user: string): string => pair.primary.url({ user, database });
    await makeDatabase(pair);
    await pair.addStandby();
    const peers = await Peers.start();
    endings.push(() => peers.stop());

    const secret = sharedSecret(randomBytes(48).toString('base64url'));
    const [formerRootKey, rootKey] = [generateRootKey(), generateRootKey()];
    const file = (name: string, text: string): string => {
      writeFileSync(join(folder, name), `${text}\n`, { mode: 0o600 });
      return join(folder, name);
    };
    const common = {
      CREDVAULT_JWT_SECRET_FILE: file('jwt-secret', secret.verifier),
      CREDVAULT_JWT_ISSUER: issuer,
      CREDVAULT_JWT_AUDIENCE: audience,
      CREDVAULT_OPERATORS: 'operator',
      CREDVAULT_PUBLIC_URL: vaultUrl,
      CREDVAULT_BROKER_PORT: '0',
      CREDVAULT_OAUTH_REDIRECT_URI: platformPage,
      CREDVAULT_EGRESS_ALLOW: `localhost:${peers.port}=127.0.0.0/8`,
      CREDVAULT_EGRESS_CA_FILE: file('peers.pem', peers.certificate),
      CREDVAULT_RATE_LIMIT_ADDRESS: '0',
      CREDVAULT_RATE_LIMIT_SUBJECT: '0',
      CREDVAULT_POOL_SIZE: '8',
      PORT: '0',
      LOG_LEVEL: 'info',
      TZ: 'UTC',
    };
    // The first start wraps everything by the former root key, so that there is something to rewrap.
    const first = new Replica({
      name: 'first',
      environment: {
        ...common,
        DATABASE_URL_FILE: file('first-database-url', databaseUrl('credvault_app')),
        CREDVAULT_ROOT_KEYS_FILE: file('former-root-key', formerRootKey),
      },
      clock: new SkewedClock(join(folder, 'first.clock'), faketimeLibrary()!),
      onLog: (line) => watch.onLog('first', line),
      onExit: (ended) => watch.onExit('first', ended),
    });
    await first.start();
    await first.stop();

    const rootKeys = `${rootKey},${formerRootKey}`;
    const rootKeysFile = file('root-keys', rootKeys);
    const stations: Station[] = [];
    for (let at = 0; at < replicaCount; at += 1) {
      const name = `r${at}`;
      const lines = (await Promise.all(
        pair.nodes.map((node) => new Line(`${name}-${node.name}`, () => node.socket).listen()),
      )) as [Line, Line];
      for (const line of lines) endings.push(() => line.close());
      const bouncers: Bouncer[] = [];
      if (at === replicaCount - 1)
        for (const line of lines) {
          const bouncer = await Bouncer.start(
            join(folder, 'pgbouncer'),
            `${line.name}-bouncer`,
            line.port,
          );
          endings.push(() => bouncer.kill());
          bouncers.push(bouncer);
        }
      const hosts = (bouncers.length > 0 ? bouncers : lines)
        .map(({ port }) => `127.0.0.1:${port}`)
        .join(',');
      const replica = new Replica({
        name,
        environment: {
          ...common,
          DATABASE_URL_FILE: file(
            `${name}-database-url`,
            `postgresql://credvault_app@${hosts}/${database}`,
          ),
          CREDVAULT_ROOT_KEYS_FILE: rootKeysFile,
          ...(bouncers.length > 0 ? { CREDVAULT_NAMED_STATEMENTS: 'off' } : {}),
        },
        clock: new SkewedClock(join(folder, `${name}.clock`), faketimeLibrary()!),
        onLog: (line) => watch.onLog(name, line),
        onExit: (ended) => watch.onExit(name, ended),
      });
      endings.push(() => replica.kill());
      stations.push({ replica, lines, bouncers });
    }
    await Promise.all(stations.map(({ replica }) => replica.start()));
    return { folder, pair, stations, peers, secret, rootKeys, databaseUrl, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The database with its two roles, as docs/operations.md has it. */
async function makeDatabase(pair: PostgresPair): Promise<void> {
  const password = randomBytes(12).toString('hex');
  for (const statement of statementsWith('create role'))
    await command(pair.primary.url(), statement.replaceAll("'…'", `'${password}'`));
  const asOwner = pair.primary.url({ user: 'credvault_owner', database });
  await migrate(asOwner);
  for (const statement of statementsWith('grant usage')) await command(asOwner, statement);
  // As many people as a large platform has: what reads all of them for each row shows.
  await command(
    asOwner,
    `insert into subject (id, sub) select gen_random_uuid(), 'person-' || n from generate_series(1, ${subjectCount}) n`,
  );
}

/** Makes a folder for what a run leaves behind. */
export function makeFolder(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}

// What each command does. Everything of the process comes in through the context.
import { isClaimedSubject } from './shared/subjects.ts';
import type { Logger } from 'pino';
import { generateRootKey } from './crypto/index.ts';
import { openDatabase } from './db/client.ts';
import { migrate } from './db/migrate.ts';
import { dumpSchema } from './db/schema-dump.ts';
import { openapiYaml } from './openapi.ts';
import { startVault } from './serve.ts';
import {
  exportSecrets,
  importCredentials,
  newRecipient,
  OptionsUnfit,
  providersPage,
  readOptions,
  rotate,
  verify,
  writeNew,
} from './cli/index.ts';
import { type Environment, readConfig, issuersOf } from './config/index.ts';
import { localToken, type LocalVault, runDemo, startLocal } from './dev/index.ts';
import { ShownError } from './shared/shown-error.ts';

export interface CommandContext {
  readonly args: readonly string[];
  readonly environment: Environment;
  readonly processId: number;
  readonly readFile: (path: string) => string;
  readonly write: (text: string) => void;
  /** For what is said beside the output. */
  readonly note?: (text: string) => void;
  /** Whether what is written is read as it comes, by a person. */
  readonly isTerminal: boolean;
  readonly makeLogger: (level: string) => Logger;
  /** Aborted when the process is asked to stop. */
  readonly stop: AbortSignal;
  readonly now: () => number;
}

export interface Command {
  readonly summary: string;
  /** It runs until it is stopped, and what it writes is a log: why it ends stands there too. */
  readonly isService?: true;
  run(context: CommandContext): Promise<number>;
}

/** The command was called in a way that it does not know. */
export class UsageError extends ShownError {
  override name = 'UsageError';
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else
      signal.addEventListener(
        'abort',
        () => {
          resolve();
        },
        { once: true },
      );
  });

export const commands: Readonly<Record<string, Command>> = {
  local: {
    summary: 'run a vault for trying it, with its own keys and database in ./data',
    async run({ environment, readFile, makeLogger, write, stop, processId }) {
      const { config } = readConfig(environment, 'local', readFile);
      const vault = await startLocal(config, { logger: makeLogger(config.logLevel), processId });
      write(welcome(vault));
      await aborted(stop);
      await vault.stop();
      return 0;
    },
  },
  serve: {
    summary: 'run a vault in production, configured by the environment',
    isService: true,
    run: (context) => serve(context),
  },
  broker: {
    summary: 'run the broker alone, configured as `serve` is',
    isService: true,
    run: (context) => serve(context, { isBrokerOnly: true }),
  },
  migrate: {
    summary: 'bring the database to the schema of this version',
    async run({ environment, readFile, write }) {
      const { secrets } = readConfig(environment, 'migrate', readFile);
      const applied = await migrate(secrets.databaseUrl);
      write(
        applied.length === 0
          ? 'nothing to do\n'
          : applied.map((name) => `applied ${name}\n`).join(''),
      );
      return 0;
    },
  },
  schema: {
    summary: 'print the schema of a migrated database, as docs/schema.sql has it',
    async run({ environment, readFile, write }) {
      const { secrets } = readConfig(environment, 'migrate', readFile);
      const database = openDatabase({ url: secrets.databaseUrl, onError: () => undefined });
      try {
        write(await dumpSchema(database.db));
      } finally {
        await database.close();
      }
      return 0;
    },
  },
  openapi: {
    summary: 'print openapi.yaml',
    async run({ write }) {
      write(await openapiYaml());
      return 0;
    },
  },
  providers: {
    summary: 'print the catalogue of OAuth providers, as docs/providers.md has it',
    async run({ write }) {
      write(providersPage());
      return 0;
    },
  },
  'generate-key': {
    summary:
      'print a fresh root key; with --recipient FILE, make the pair that an export is sealed ' +
      'to: the private half into FILE, the public one printed',
    run: (context) =>
      withOptions(async () => {
        const { recipient } = readOptions(context.args, { recipient: { type: 'string' } });
        if (recipient === undefined) context.write(`${generateRootKey()}\n`);
        else {
          const { publicJwk, privateJwk } = newRecipient();
          writeNew(recipient, `${JSON.stringify(privateJwk)}\n`);
          context.write(`${JSON.stringify(publicJwk)}\n`);
        }
        return 0;
      }),
  },
  token: {
    summary:
      'print a token for a subject of the local vault; the subject `operator` is the operator',
    async run({ args, environment, readFile, write, now }) {
      const [subject] = args;
      if (args.length !== 1 || subject === undefined || !isClaimedSubject(subject))
        throw new UsageError('say one subject: npm run -s vault -- token SUBJECT');
      const { config } = readConfig(environment, 'local', readFile);
      write(`${await localToken(config.dataFolder, subject, now())}\n`);
      return 0;
    },
  },
  rotate: {
    summary:
      'rotate the key of a team (--team SLUG) or the root key (--root); --watch, --dry-run, ' +
      '--reason TEXT, --json',
    run: (context) => withOptions(() => rotate(context)),
  },
  import: {
    summary:
      'bring credentials of another system along: --from heym|n8n|airflow|env|vault --file ' +
      'PATH (n8n: or a folder) --team SLUG; --key-file PATH, --update, for all of Heym ' +
      '--database PATH, --map PATH, --member-role ROLE, --dry-run, --json',
    run: (context) => withOptions(() => importCredentials(context)),
  },
  export: {
    summary:
      'write the secrets of a team, sealed to a public key: --team SLUG --to PUBLIC_KEY.json ' +
      '--reason TEXT; --out FILE. Offline, with the root key',
    run: (context) => withOptions(() => exportSecrets(context)),
  },
  verify: {
    summary: 'open every token, check every row MAC and event, and name what does not hold; --json',
    run: (context) => withOptions(() => verify(context)),
  },
  demo: {
    summary: 'play the whole story against a vault of its own, and clean up',
    run: ({ write, stop, processId, makeLogger, environment }) =>
      runDemo({
        write,
        stop,
        processId,
        logger: makeLogger('fatal'),
        postgresBinFolder: environment['PG_BIN'],
      }),
  },
  help: {
    summary: 'print this list',
    async run({ write }) {
      const width = Math.max(...Object.keys(commands).map((name) => name.length));
      write(
        `npm run -s vault -- COMMAND\n\n${Object.entries(commands)
          .map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}\n`)
          .join('')}`,
      );
      return 0;
    },
  },
};

/** Runs a configured vault until it is asked to stop. */
async function serve(
  { args, environment, readFile, makeLogger, stop }: CommandContext,
  only: { isBrokerOnly?: true } = {},
): Promise<number> {
  const options = serveOptions(args);
  const { config, secrets } = readConfig(
    environment,
    only.isBrokerOnly === true ? 'broker' : 'serve',
    readFile,
  );
  const vault = await startVault({
    config,
    databaseUrl: secrets.databaseUrl,
    rootKeys: secrets.rootKeys,
    operators: config.operators,
    logger: makeLogger(config.logLevel),
    issuers: issuersOf(config.issuers, secrets.jwtSecret),
    areSubjectsAccepted: options['accept-subjects'] === true,
    trustedProxies: config.trustedProxies,
    tls:
      config.tlsCertificate === undefined || secrets.tlsKey === undefined
        ? undefined
        : { cert: config.tlsCertificate, key: secrets.tlsKey },
    ...only,
  });
  await aborted(stop);
  await vault.stop();
  return 0;
}

function serveOptions(args: readonly string[]): { 'accept-subjects'?: boolean | undefined } {
  try {
    return readOptions(args, { 'accept-subjects': { type: 'boolean' } });
  } catch (error) {
    if (error instanceof OptionsUnfit) throw new UsageError(error.message);
    throw error;
  }
}

/** What a command cannot use is a question of usage. */
async function withOptions(run: () => Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof OptionsUnfit) throw new UsageError(error.message);
    throw error;
  }
}

const welcome = ({ url, dataFolder }: Pick<LocalVault, 'url' | 'dataFolder'>): string => `
The vault runs on ${url}

  the API's documentation   ${url}/docs
  a token for yourself      npm run -s vault -- token alice
  a token for the operator  npm run -s vault -- token operator
  the whole story, played   npm run demo

Keys and database are in ${dataFolder}. Ctrl-C stops it; the next start keeps everything.

`;

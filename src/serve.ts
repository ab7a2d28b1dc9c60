// From configuration to a listening vault: database, keyring, app; stopped in reverse order.
import type { Logger } from 'pino';
import { buildApp, type Vault } from './app.ts';
import { parseRootKeys } from './crypto/index.ts';
import { openDatabase } from './db/client.ts';
import { DatabaseClock } from './db/clock.ts';
import { schemaState } from './db/migrate.ts';
import { settlePrefixes } from './db/subject-prefixes.ts';
import { parseDatabaseUrl } from './db/url.ts';
import { ConfiguredDocuments, Egress, type OwnEndpoint } from './egress/index.ts';
import type { Issuer } from './access/index.ts';
import { documentBytesMax, documentTimeoutMs } from './http/jwks.ts';
import { tellOfDamagedSystemKeys } from './http/logging.ts';
import type { LocalConfig, ServeConfig } from './config/index.ts';
import { checkCanaries, openKeyring } from './keys/index.ts';
import { ShownError } from './shared/shown-error.ts';

/** Claims of which it is known that they stay with whom they name. */
const usualSubjectClaims = ['sub', 'oid', 'email'];

/** What a way to run hands in. */
export interface VaultSettings {
  readonly config: LocalConfig | ServeConfig;
  readonly databaseUrl: string;
  readonly rootKeys: string;
  /** Whose tokens count. */
  readonly issuers: readonly Issuer[];
  /** Rights of subjects may go to the issuer that has their prefix now. */
  readonly areSubjectsAccepted?: boolean;
  readonly operators: readonly string[];
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  readonly trustedProxies: readonly string[];
  readonly logger: Logger;
  /** Only the broker listens here: other replicas have the rest. */
  readonly isBrokerOnly?: true;
}

export interface RunningVault {
  /** Where it listens, e.g. http://127.0.0.1:7300. */
  readonly url: string;
  /** Where the broker is reached; undefined where it is off. */
  readonly brokerUrl: string | undefined;
  /**
   * Answers what it has begun, finishes a batch of a running rotation, writes what is pending,
   * closes.
   */
  stop(): Promise<void>;
}

/** The schema in the database is not the one that this version knows. */
export class SchemaUnfit extends ShownError {
  constructor(state: string) {
    super(
      state === 'behind'
        ? 'the schema is behind this version: run `npm run -s vault -- migrate`'
        : 'the schema is not one that this version knows',
    );
    this.name = 'SchemaUnfit';
  }
}

const listenFaults: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process listens there: stop it, or configure another port',
  EACCES: 'this user may not listen there: configure a port above 1023',
  EADDRNOTAVAIL: 'this machine has no such address: configure one that it has',
};

/** The operating system does not let the vault listen where it is configured to. */
export class ListenRefused extends ShownError {
  constructor({ host, port }: { host: string; port: number }, cause: unknown) {
    const { code } = (cause ?? {}) as { code?: unknown };
    const name = typeof code === 'string' && /^[A-Z0-9_]{1,40}$/.test(code) ? code : 'unknown';
    const address = host.includes(':') ? `[${host}]` : host;
    super(
      `cannot listen at ${address}:${port} (${name}` +
        `${Object.hasOwn(listenFaults, name) ? `): ${listenFaults[name]}` : ')'}`,
      { cause },
    );
    this.name = 'ListenRefused';
  }
}

/**
 * Starts a vault on a migrated database. Throws SchemaUnfit, RootKeyMissing, ListenRefused; nothing
 * stays open then.
 */
export async function startVault(settings: VaultSettings): Promise<RunningVault> {
  const { config, logger } = settings;
  const database = openDatabase({
    url: settings.databaseUrl,
    poolMax: config.poolMax,
    namedStatements: config.namedStatements,
    onError: (error) => {
      logger.warn(
        {
          event: 'databaseConnectionLost',
          name: error.name,
          code: (error as { code?: unknown }).code,
        },
        'a database connection was lost',
      );
    },
  });
  try {
    const state = await schemaState(database.db);
    if (state !== 'current') throw new SchemaUnfit(state);
    await settlePrefixes(
      database.db,
      settings.issuers.map(({ subjectPrefix, issuer }) => ({
        prefix: subjectPrefix,
        issuer: issuer ?? 'none',
      })),
      { isAccepted: settings.areSubjectsAccepted === true },
    );
    const clock = new DatabaseClock({ db: database.db });
    await clock.measure();
    const roots = parseRootKeys(settings.rootKeys);
    const onDamaged = tellOfDamagedSystemKeys(logger);
    const keyring = await openKeyring({ db: database.db, roots, now: clock.now, onDamaged });
    let url = config.publicUrl ?? '';
    let brokerUrl = config.broker?.publicUrl;
    let brokerListens: string | undefined;
    const own = (): readonly OwnEndpoint[] =>
      ownEndpoints(settings.databaseUrl, [
        { host: config.host, url, publicUrl: config.publicUrl },
        ...(config.broker === undefined
          ? []
          : [
              {
                host: config.broker.listen?.host,
                url: brokerListens,
                publicUrl: config.broker.publicUrl,
                hostSuffix: config.broker.hostSuffix,
              },
            ]),
      ]);
    for (const { issuer = 'none', subjectClaim } of settings.issuers)
      if (!usualSubjectClaims.includes(subjectClaim))
        logger.warn(
          { event: 'subjectClaimUnusual', issuer, claim: subjectClaim },
          'a claim that names subjects must never be given to somebody else',
        );
    const egress = new Egress({ ...config.egress, own });
    const documents = new ConfiguredDocuments(config.egress.ca, {
      timeoutMs: documentTimeoutMs,
      bytesMax: documentBytesMax,
    });
    const closeDialling = async (): Promise<void> => {
      await egress.close();
      await documents.close();
    };
    const vault = await buildApp({
      db: database.db,
      keyring,
      rootKeys: roots.fingerprints,
      logger,
      clock,
      issuers: settings.issuers,
      fetchDocumentFor: ({ ca }) => documents.for(ca),
      operators: settings.operators,
      tokenFormat: config.tokenFormat,
      publicUrl: () => config.publicUrl ?? url,
      brokerUrl: () => brokerUrl,
      brokerHostSuffix: config.broker?.hostSuffix,
      brokerCallsMax: config.brokerCallsMax,
      rateLimits: config.rateLimits,
      growthLimits: config.growthLimits,
      trustedProxies: settings.trustedProxies,
      tls: settings.tls,
      readiness: [
        {
          name: 'database',
          check: async () => {
            await database.db.selectNoFrom((select) => select.lit(1).as('one')).execute();
            return true;
          },
        },
        { name: 'schema', check: async () => (await schemaState(database.db)) === 'current' },
        { name: 'rootKeys', check: () => checkCanaries(database.db, roots) },
        { name: 'clock', check: () => clock.isNearEnough() },
      ],
      egress,
      oauthRedirectUri: config.oauthRedirectUri,
    });
    try {
      if (settings.isBrokerOnly !== true) url = await listenAt(vault.app, config);
      const { listen } = config.broker ?? {};
      if (listen !== undefined) {
        brokerListens = await listenAt(vault.broker, listen);
        brokerUrl ??= brokerListens;
        if (settings.isBrokerOnly === true) url = brokerListens;
      }
    } catch (error) {
      await vault.stop();
      await closeDialling();
      throw error;
    }
    vault.start();
    logger.info(
      {
        event: 'listening',
        url,
        ...(config.broker?.listen === undefined ? {} : { brokerUrl }),
        rootKeys: roots.fingerprints,
      },
      'listening',
    );
    return {
      url,
      brokerUrl,
      stop: async () => {
        await vault.stop();
        await closeDialling();
        await database.close();
        logger.info({ event: 'stopped' }, 'stopped');
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

async function listenAt(
  app: Pick<Vault['app'], 'listen'>,
  at: { readonly host: string; readonly port: number },
): Promise<string> {
  try {
    return await app.listen({ host: addressOf(at.host), port: at.port });
  } catch (error) {
    throw new ListenRefused(at, error);
  }
}

/**
 * For the name fastify would open a second server, for ::1, that does not know how we answer and
 * close.
 */
const addressOf = (host: string): string => (host === 'localhost' ? '127.0.0.1' : host);

interface Listener {
  readonly host: string | undefined;
  readonly url: string | undefined;
  readonly publicUrl: string | undefined;
  readonly hostSuffix?: string | undefined;
}

/** What the vault is reached at itself: its listeners, where others see them, and its database. */
function ownEndpoints(databaseUrl: string, listeners: readonly Listener[]): readonly OwnEndpoint[] {
  const portOf = (url: URL): number => Number(url.port) || (url.protocol === 'https:' ? 443 : 80);
  return [
    ...listeners.flatMap(({ host, url, publicUrl, hostSuffix }): OwnEndpoint[] => {
      const [here, seen] = [url, publicUrl].map((text) => URL.parse(text ?? ''));
      return [
        ...(here == null || host === undefined ? [] : [{ host, port: portOf(here) }]),
        // The address behind this name may be a balancer's, with other services beside the vault.
        ...(seen == null
          ? []
          : [{ host: seen.hostname, port: portOf(seen), byName: true as const }]),
        ...(seen == null || hostSuffix === undefined
          ? []
          : [
              {
                host: hostSuffix,
                port: portOf(seen),
                byName: true as const,
                hasHosts: true as const,
              },
            ]),
      ];
    }),
    ...parseDatabaseUrl(databaseUrl).hosts.filter(({ host }) => !host.startsWith('/')),
  ];
}

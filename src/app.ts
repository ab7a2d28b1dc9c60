// The composition, on one screen: parts in, a fastify app out. Opens nothing, reads no environment.
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import type { Keyring } from './crypto/index.ts';
import { type Db, waitingConnections } from './db/client.ts';
import type { DatabaseClock } from './db/clock.ts';
import { ClockWatch } from './db/clock-watch.ts';
import { Standby } from './db/standby.ts';
import { Subjects } from './db/subjects.ts';
import type { Egress } from './egress/index.ts';
import { registerAuthentication } from './http/authentication.ts';
import { registerAnswers } from './http/answers.ts';
import { registerAuthorization } from './http/authorize.ts';
import { registerDocs } from './http/docs.ts';
import { openapiDocument } from './http/document.ts';
import { registerDurability } from './http/durability.ts';
import { type ReadinessCheck, registerHealth } from './http/health.ts';
import { Idempotency } from './http/idempotency.ts';
import { type Issuer, Issuers } from './access/index.ts';
import type { FetchDocument } from './http/jwks.ts';
import {
  logBackgroundFailure,
  logJwks,
  logTokenRefused,
  registerRequestLog,
  tellOfDamagedSystemKeys,
} from './http/logging.ts';
import { Cursors } from './http/paging.ts';
import { addContinue } from './http/node-answers.ts';
import { addSubjectLimit, type RateLimits } from './http/rate-limits.ts';
import { createServer } from './http/server.ts';
import { endSlowAnswers } from './http/slow-answers.ts';
import { Callers } from './http/callers.ts';
import { Traffic } from './http/traffic.ts';
import { type GrowthLimits, growthLimits } from './shared/growth.ts';
import type { Waits } from './shared/waits.ts';
import {
  listEvents,
  registerAccessRecords,
  registerAudit,
  showEvent,
} from './audit-events/index.ts';
import { AuditLog } from './audit/index.ts';
import {
  Addresses,
  type BrokerParts,
  BrokerProxy,
  BrokerService,
  CallLimits,
  Calls,
  createBrokerListener,
  isInjectableHeader,
  Outcomes,
  registerBrokerTickets,
  TicketLife,
  type WebSocketTimes,
} from './broker/index.ts';
import { ConnectionsService, registerConnections } from './connection-tests/index.ts';
import {
  bulkGate,
  canShowCredential,
  CredentialHistory,
  CredentialLists,
  CredentialsService,
  CredentialUpsert,
  DeclaredTypes,
  Discovery,
  type OAuthProvider,
  registerCredentialBulk,
  registerCredentialHistory,
  registerCredentialLists,
  registerCredentials,
  registerDeclaredTypes,
  registerOAuthProviders,
  StoredTypes,
  TeamRoom,
} from './credentials/index.ts';
import { canShowEngine, EnginesService, registerEngines } from './engines/index.ts';
import { ExportsService, registerExports } from './exports/index.ts';
import { recomputeRowMacs } from './integrity/index.ts';
import {
  insertNextSystemKeys,
  KeyLifeService,
  KeyScheduler,
  KeysService,
  registerKeys,
  registerRotations,
  RotationWorker,
  SystemKeyKeeper,
} from './keys/index.ts';
import { LeasesService, registerLeases, UsageCounter } from './leases/index.ts';
import {
  canShowWebhook,
  Deliverer,
  DueScanner,
  Outbox,
  registerWebhooks,
  WebhooksService,
} from './notifications/index.ts';
import { AccessTokens, OAuthService, Provider, registerOAuth } from './oauth/index.ts';
import { Retention } from './retention/index.ts';
import { registerRootKeys, RootKeysService } from './root-keys/index.ts';
import {
  canShowGrant,
  registerGrants,
  registerTransfers,
  SharingService,
  TransfersService,
} from './sharing/index.ts';
import {
  canShowTeams,
  registerTeams,
  registerWhoami,
  takeOverTeams,
  TeamsService,
} from './teams/index.ts';

/** What the app is made of. */
export interface AppParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** The fingerprints of the configured root keys, the primary one first. */
  readonly rootKeys: readonly string[];
  readonly logger: Logger;
  /** The database's time, by which everything goes. */
  readonly clock: DatabaseClock;
  /** Whose tokens count. */
  readonly issuers: readonly Issuer[];
  /** How documents of an issuer are fetched. */
  readonly fetchDocumentFor: (issuer: Issuer) => FetchDocument;
  readonly operators: readonly string[];
  readonly tokenFormat: 'fernet' | 'fernet-256';
  /**
   * The issuer of leases; asked for when the first lease is made, because a free port is known only
   * then.
   */
  readonly publicUrl: () => string;
  /** Where callers reach the broker; undefined where it is off. */
  readonly brokerUrl: () => string | undefined;
  /** Below which each credential has a host of its own at the broker. */
  readonly brokerHostSuffix?: string | undefined;
  /** Calls of the broker at once. */
  readonly brokerCallsMax: number;
  /** Times of WebSockets; the usual ones without it. */
  readonly webSocketTimes?: WebSocketTimes;
  readonly rateLimits: RateLimits;
  /** Beside the usual ones. */
  readonly growthLimits?: Partial<GrowthLimits> | undefined;
  readonly trustedProxies: readonly string[];
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  readonly readiness: readonly ReadinessCheck[];
  /** Through which everything dials; whoever made it closes it. */
  readonly egress: Egress;
  /** The page of the platform to which providers send people back. */
  readonly oauthRedirectUri: string | undefined;
  /** What `provider` of a credential is looked up in; the catalogue without it. */
  readonly oauthProviders?: readonly OAuthProvider[];
}

/**
 * The app, the broker's (which listens only where it is turned on), and what runs beside them:
 * started after listening, stopped before the database closes.
 */
export interface Vault {
  readonly app: FastifyInstance;
  readonly broker: FastifyInstance;
  start(): void;
  stop(): Promise<void>;
}

/** Composes the vault. */
export async function buildApp(parts: AppParts): Promise<Vault> {
  const { db, keyring, logger, clock } = parts;
  const { now } = clock;
  const issuers = new Issuers(parts.issuers);
  let isStopping = false;
  const app = await createServer({
    logger,
    trustedProxies: parts.trustedProxies,
    addressLimit: parts.rateLimits.address,
    tls: parts.tls,
    isStopping: () => isStopping,
  });
  const onError = (error: Error): void => {
    logBackgroundFailure(logger, error);
  };
  const clockWatch = new ClockWatch({
    clock,
    onDifference: (aheadMs) => {
      logger.error(
        { event: 'clockDiffers', aheadMs },
        "this replica's clock differs from the database's: nothing is destroyed, purged or " +
          'forgotten here',
      );
    },
    onAgreement: () => {
      logger.info({ event: 'clockAgrees' }, 'the clocks agree again');
    },
  });
  const outbox = new Outbox({ keyring, now, onError });
  const dueScanner = new DueScanner({
    db,
    outbox,
    keyring,
    now,
    onError,
    onAlarm: (alarm) => {
      audit.alarm(alarm);
    },
  });
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError,
    onRecorded: outbox.tell,
    onFailedLogIn: (failed) => {
      logTokenRefused(logger, failed);
    },
    onAlarm: (alarm) => {
      const { reason, action, target, requestId } = alarm;
      logger.error(
        { event: reason, action, target, requestId },
        reason === 'sealBroken'
          ? 'a row with a MAC was changed past the service'
          : 'a row cannot be shown: it was changed past the service',
      );
      dueScanner.noteTamperedRow(alarm);
    },
  });
  const subjects = new Subjects();
  const cursors = new Cursors(keyring);
  const usage = new UsageCounter({ db, now, onError });
  const traffic = new Traffic();
  traffic.watch(app);
  const worker = new RotationWorker({
    db,
    keyring,
    audit,
    now,
    onError,
    isForegroundBusy: () => traffic.isBusy(),
  });
  const retention = new Retention({ db, audit, clock, onError });

  const wake = (): void => {
    worker.wake();
  };
  const limits = { ...growthLimits, ...parts.growthLimits };
  const room = new TeamRoom({ db, now, onError, limits });
  const keys = new KeysService({ db, keyring, audit, now, wake, keysMax: limits.keys });
  const life = new KeyLifeService({ db, keyring, audit, now, clock, wake });
  const scheduler = new KeyScheduler({ db, keyring, audit, now, clock, wake, life, onError });
  const keeper = new SystemKeyKeeper({
    db,
    keyring,
    audit,
    clock,
    onError,
    reseal: (isStopping) => recomputeRowMacs(db, keyring, isStopping),
    takeOver: (isStopping) => takeOverTeams(db, { keyring, audit }, isStopping),
    onDamaged: tellOfDamagedSystemKeys(logger),
  });
  const rootKeys = new RootKeysService({
    db,
    keyring,
    audit,
    now,
    configured: parts.rootKeys,
    insertNextSystemKeys: (trx, usableFrom) => insertNextSystemKeys(trx, keyring, usableFrom),
    onMarked: () => {
      scheduler.wake();
    },
    onUnwrapped: (failure) => {
      logger.error({ event: 'keyNotRewrapped', ...failure }, 'a key does not unwrap');
    },
  });
  const engines = new EnginesService({
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    subjects,
    now,
    canShow: canShowEngine,
  });
  const teams = new TeamsService({
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    subjects,
    now,
    tokenFormat: parts.tokenFormat,
    membersMax: limits.members,
    canShow: canShowTeams,
    insertFirstKey: (trx, key) => keys.insertFirstKey(trx, key),
    isEnabledEngine: (trx, subject, sub, who) => engines.isEnabledEngine(trx, subject, sub, who),
  });
  const discovery = new Discovery({ egress: parts.egress, now });
  const { oauthProviders } = parts;
  const credentials = new CredentialsService({
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    now,
    room,
    canShow: canShowCredential,
    discover: (issuer, team) => discovery.read(issuer, team),
    ...(oauthProviders === undefined
      ? {}
      : { findProvider: (name) => oauthProviders.find((each) => each.name === name) }),
  });
  const sharing = new SharingService({
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    subjects,
    now,
    grantsMax: limits.grants,
    canShow: canShowGrant,
    isEngine: (trx, subject, sub, who) => engines.isEngine(trx, subject, sub, who),
  });
  const transfers = new TransfersService({
    db,
    keyring,
    audit,
    now,
    credentials,
    room,
    resolveTeam: (caller, slug) => teams.resolveTeam(caller, slug),
  });
  const types = new StoredTypes({ db, keyring });
  const connections = new ConnectionsService({
    db,
    audit,
    credentials,
    egress: parts.egress,
    types,
    now,
  });
  const deliverer = new Deliverer({
    db,
    keyring,
    audit,
    now,
    isClockAgreed: () => clock.isAgreed,
    onError,
    credentials,
    egress: parts.egress,
    onUse: (credential) => {
      usage.count(credential);
    },
    onAlarm: ({ table, id }) => {
      logger.error(
        { event: 'sealBroken', action: 'notify', target: { type: table, id } },
        'a row with a MAC was changed past the service',
      );
    },
  });
  const webhooks = new WebhooksService({
    db,
    keyring,
    audit,
    now,
    credentials,
    outbox,
    canShow: canShowWebhook,
    wake: () => {
      deliverer.wake();
    },
  });
  const provider = new Provider({
    egress: parts.egress,
    now,
    redirectUri: parts.oauthRedirectUri,
  });
  const accessTokens = new AccessTokens({ db, keyring, audit, now, provider });
  const oauth = new OAuthService({
    db,
    keyring,
    audit,
    now,
    provider,
    redirectUri: parts.oauthRedirectUri,
    room,
    authorizationsMax: limits.authorizations,
    resolve: (caller, id) => credentials.resolveCredential(caller, id),
    openSecrets: (caller, row) => credentials.openSecrets(caller, row),
  });
  const leases = new LeasesService({
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    now,
    usage,
    accessTokens,
    issuer: parts.publicUrl,
  });
  const addresses = new Addresses({ url: parts.brokerUrl, hostSuffix: parts.brokerHostSuffix });
  const ofTickets: BrokerParts = {
    types,
    db,
    keyring,
    subjectBounds: issuers,
    audit,
    now,
    resolveTeam: (caller, slug) => teams.resolveTeam(caller, slug),
    brokerUrl: parts.brokerUrl,
    addresses,
  };

  const exports = new ExportsService({ db, keyring, audit, now, listEvents, showEvent });
  const bulk = bulkGate();

  const standby = new Standby({ db });
  // Where the database is away, the first answer that has to be confirmed is `commitUnknown`.
  await standby.look().catch(() => undefined);
  registerDurability(app, standby);
  const authenticator = await registerAuthentication(app, {
    issuers,
    now,
    fetchDocumentFor: parts.fetchDocumentFor,
    notes: {
      onJwks: (news, { issuer }) => {
        logJwks(logger, news, issuer);
      },
      onSubjectTokenRefused: (request, reason) => {
        request.log.info(
          { event: 'tokenRefused', of: 'subjectToken', reason },
          'a token was refused',
        );
      },
    },
  });
  const callers = new Callers({
    issuers,
    operators: new Set(parts.operators),
    findSubject: (sub) => subjects.find(db, sub),
    ensureSubject: (sub) => subjects.ensure(db, sub),
    isEngine: (subject) => engines.hasEngine(subject),
  });
  const countRequest = await addSubjectLimit(app, parts.rateLimits.subject);
  const idempotency = new Idempotency({ db, keyring, clock });
  registerAuthorization(app, {
    authenticator,
    callers,
    resolve: {
      team: (caller, slug) => teams.resolveTeam(caller, slug),
      credential: (caller, id) => credentials.resolveCredential(caller, id),
      anyCredential: (caller, id) => credentials.resolveAnyCredential(caller, id),
    },
    countRequest,
    recordDenial: (denial) => audit.denial(denial),
    recordFailedAuthentication: (failed) => {
      audit.failedLogIn(failed);
    },
  });
  addContinue(app);
  registerAnswers(app, {
    onUnreadable: (row) => {
      audit.alarm({ ...row, reason: 'rowUnreadable' });
    },
  });
  registerRequestLog(app);
  endSlowAnswers(app);
  registerAccessRecords(app, audit);

  registerHealth(app, { checks: parts.readiness, isStopping: () => isStopping, now });
  registerDocs(app, () => openapiDocument(app.operations));
  registerWhoami(app, { service: teams });
  registerTeams(app, { service: teams, idempotency, cursors });
  registerDeclaredTypes(app, {
    service: new DeclaredTypes({
      db,
      keyring,
      audit,
      now,
      isHeaderFree: isInjectableHeader,
    }),
  });
  registerCredentials(app, {
    service: credentials,
    upsert: new CredentialUpsert({ db, keyring, audit, now }, credentials),
    idempotency,
  });
  registerCredentialLists(app, {
    lists: new CredentialLists({ db, keyring, subjectBounds: issuers, audit, now }),
    cursors,
  });
  registerCredentialBulk(app, { service: credentials, running: bulk });
  registerCredentialHistory(app, {
    service: credentials,
    history: new CredentialHistory({
      db,
      keyring,
      audit,
      now,
      room,
      canShow: canShowCredential,
    }),
    idempotency,
    cursors,
  });
  registerGrants(app, { service: sharing, cursors });
  registerTransfers(app, { service: transfers, idempotency, cursors });
  registerConnections(app, { service: connections });
  registerEngines(app, { service: engines, idempotency, cursors });
  registerOAuth(app, { service: oauth });
  registerOAuthProviders(app);
  registerLeases(app, { service: leases, authenticator, keyring });
  registerBrokerTickets(app, {
    service: new BrokerService(ofTickets),
    life: new TicketLife(ofTickets),
    authenticator,
  });
  registerKeys(app, { service: keys, life, cursors, now });
  registerRotations(app, { service: keys, idempotency, cursors });
  registerWebhooks(app, { service: webhooks, cursors });
  const callLimits = new CallLimits(now, parts.brokerCallsMax);
  const outcomes = new Outcomes({ db, audit, onError });
  const proxy = new BrokerProxy({
    egress: parts.egress,
    outcomes,
    now,
    onError,
    ...(parts.webSocketTimes === undefined ? {} : { webSocketTimes: parts.webSocketTimes }),
  });
  const waits: Waits = () => ({
    databaseConnections: waitingConnections(db),
    tokenRefreshes: accessTokens.counts,
    leasedBytes: leases.counts,
    brokerCalls: callLimits.counts,
    brokerBodyBytes: proxy.counts,
    bulkChanges: bulk.counts,
    transfers: transfers.counts,
    exports: exports.counts,
  });
  registerRootKeys(app, { service: rootKeys, waits });
  registerAudit(app, { db, keyring, cursors });
  registerExports(app, { service: exports, onError });
  await app.ready();

  const broker = await createBrokerListener({
    logger,
    isStopping: () => isStopping,
    trustedProxies: parts.trustedProxies,
    tls: parts.tls,
    rateLimits: parts.rateLimits,
    addresses,
    onTraffic: () => {
      traffic.note();
    },
    calls: new Calls({
      types,
      db,
      keyring,
      subjectBounds: issuers,
      audit,
      now,
      usage,
      limits: callLimits,
      accessTokens,
      outcomes,
    }),
    proxy,
  });

  return {
    app,
    broker,
    start: () => {
      clockWatch.start();
      worker.start();
      scheduler.start();
      keeper.start();
      usage.start();
      room.start();
      retention.start();
      dueScanner.start();
      void authenticator.discover();
      deliverer.start();
    },
    stop: async () => {
      isStopping = true;
      await Promise.all([app.closeGently(), broker.closeGently()]);
      await outcomes.stop();
      await Promise.all([
        worker.stop(),
        scheduler.stop(),
        keeper.stop(),
        retention.stop(),
        dueScanner.stop(),
        deliverer.stop(),
        usage.stop(),
        room.stop(),
        accessTokens.stop(),
        clockWatch.stop(),
      ]);
      await audit.stop();
    },
  };
}

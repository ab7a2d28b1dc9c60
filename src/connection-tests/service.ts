// Tests of connections: the type's own check, with stored values only, against the credential's own
// destination. That a secret was used stands in the audit log before anything is dialled, what
// became of it afterwards.
import type { Db } from '../db/client.ts';
import type { Egress } from '../egress/index.ts';
import { AppError } from '../shared/errors.ts';
import type { SubjectId, TeamId } from '../shared/ids.ts';
import { testHttp } from './http.ts';
import { testImap } from './imap.ts';
import { testKafka } from './kafka.ts';
import { testQdrant } from './qdrant.ts';
import { testRabbitmq } from './rabbitmq.ts';
import { testRedis } from './redis.ts';
import { type ConnectionReport, reportOf, type Wire } from './report.ts';
import { testSmtp } from './smtp.ts';
import type { ConnectionTarget } from './target.ts';
import type { Caller, GrantPath } from '../access/index.ts';
import { type AuditLog, credentialTarget, eventsThrough } from '../audit/index.ts';
import type {
  ConnectionTest,
  CredentialRow,
  CredentialsService,
  CredentialType,
  InUse,
  StoredTypes,
} from '../credentials/index.ts';
import { unknownMember } from '../shared/closed-sets.ts';

export interface ConnectionsParts {
  readonly db: Db;
  readonly audit: AuditLog;
  readonly credentials: Pick<CredentialsService, 'openForUse'>;
  readonly egress: Egress;
  readonly types: Pick<StoredTypes, 'find'>;
  readonly now: () => number;
}

const timeoutMs = 12_000;
const testsPerMinute = 10;
const minuteMs = 60_000;
const teamsMax = 10_000;

/** What is asked of connections. */
export class ConnectionsService {
  readonly #parts: ConnectionsParts;
  readonly #recent = new Map<TeamId | SubjectId, readonly number[]>();
  constructor(parts: ConnectionsParts) {
    this.#parts = parts;
  }

  /**
   * Tests a connection, of another team's credential by a grant path. Throws notTestable,
   * rateLimited, notFound, stateConflict, undecryptable, keyUnavailable; whatever the other side
   * does is a report.
   */
  async testConnection(
    caller: Caller,
    resolved: CredentialRow,
    grantPath: GrantPath | undefined,
  ): Promise<ConnectionReport> {
    const { audit, credentials, db } = this.#parts;
    const type = await this.#parts.types.find(resolved.type);
    if (type?.test === undefined)
      throw new AppError('notTestable', 'Credentials of this type have no test.');
    // A caller who comes by a grant uses up their own: the owner's people must be able to test what
    // is theirs.
    this.#count(
      grantPath === undefined ? resolved.team : (grantPath.team?.id ?? grantPath.subject),
    );
    const used = await credentials.openForUse(
      caller,
      resolved,
      { action: 'credential.test', details: { kind: type.test.kind } },
      grantPath,
    );
    const report = await this.#run(type, type.test, used);
    const last = report.steps.at(-1);
    await audit.record(
      db,
      ...eventsThrough(
        {
          caller: { ...caller, address: null },
          team: { id: resolved.team, slug: resolved.slug },
          action: 'credential.tested',
          target: credentialTarget(resolved.id),
          credentialVersion: used.row.version,
          details: {
            ok: report.ok,
            ...(last === undefined ? {} : { step: last.step, outcome: last.outcome }),
          },
        },
        grantPath === undefined ? [] : [grantPath],
      ),
    );
    return report;
  }

  #run(
    type: CredentialType,
    test: ConnectionTest,
    { row, secrets }: InUse,
  ): Promise<ConnectionReport> {
    const wire: Wire = { isTls: false };
    // SECURITY: plaintext is exposed here, for one conversation; of what comes back only the
    // report's words leave.
    const target: ConnectionTarget = {
      egress: this.#parts.egress,
      team: row.slug,
      fields: { ...row.publicFields, ...secrets.expose() },
      wire,
      timeoutMs,
      now: this.#parts.now,
    };
    return reportOf(wire, () => {
      switch (test.kind) {
        case 'http':
          return testHttp(target, type, row.policy, test);
        case 'smtp':
          return testSmtp(target);
        case 'imap':
          return testImap(target);
        case 'redis':
          return testRedis(target);
        case 'rabbitmq':
          return testRabbitmq(target);
        case 'kafka':
          return testKafka(target);
        case 'qdrant':
          return testQdrant(target);
      }
      throw unknownMember(test satisfies never);
    });
  }

  /**
   * SECURITY: tests dial for their caller; a team that asks much more often than a person would is
   * scanning something.
   */
  #count(team: TeamId | SubjectId): void {
    const now = this.#parts.now();
    const recent = (this.#recent.get(team) ?? []).filter((at) => at > now - minuteMs && at <= now);
    if (recent.length >= testsPerMinute) {
      throw new AppError('rateLimited', 'Too many tests for this team; wait as Retry-After says.', {
        retryAfterSeconds: Math.ceil((recent[0]! + minuteMs - now) / 1000),
      });
    }
    if (this.#recent.size >= teamsMax) this.#recent.clear();
    this.#recent.set(team, [...recent, now]);
  }
}

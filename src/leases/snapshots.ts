// What a lease of the same things by the same engine rested on the last time, so that the next one
// is a single round trip: its events are made over what is expected, and the statement that reads
// records them if it finds just that. Ids and revisions only; no right and no secret is remembered,
// and nothing is decided here.
import type { CredentialId, DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import type { Granted, Recipient } from './decide.ts';
import type { LeaseQuery } from './types.ts';
import type { GrantPath } from '../access/index.ts';

/** A credential as it was leased. */
export interface Leased {
  readonly id: CredentialId;
  readonly team: TeamId;
  readonly slug: string;
  readonly revision: number;
  readonly version: number;
  readonly dataKey: DataKeyId;
  readonly memberRevision: number | null;
  readonly behalfSubject: SubjectId | null;
  readonly behalfRevision: number | null;
  /** The grants; what took some is not remembered. */
  readonly grantPaths: readonly GrantPath[];
}

/** Everything that the event of a lease says beyond what is in the request. */
export interface ExpectedLease {
  readonly recipient: Pick<Recipient, 'id' | 'revision' | 'kid'>;
  readonly leased: readonly Leased[];
  /** What all of it takes while it is open, as stored. */
  readonly bytes: number;
}

/** What is remembered of a credential that was granted. */
export const leasedOf = ({ row, version, grantPaths }: Granted): Leased => ({
  id: row.id,
  team: row.team,
  slug: row.slug,
  revision: row.revision,
  version: row.currentVersion,
  dataKey: version.key.id,
  memberRevision: row.rights.member_revision,
  behalfSubject: row.behalfSubject,
  behalfRevision: row.behalfRights.member_revision,
  grantPaths,
});

const credentialsMax = 20_000;

/** Remembers by what was asked for; the oldest out first. */
export class LeaseExpectations {
  readonly #known = new Map<string, ExpectedLease>();
  #credentials = 0;

  find(query: LeaseQuery): ExpectedLease | undefined {
    return this.#known.get(nameOf(query));
  }

  remember(query: LeaseQuery, expected: ExpectedLease): void {
    this.forget(query);
    this.#known.set(nameOf(query), expected);
    this.#credentials += expected.leased.length;
    for (const [oldest] of this.#known) {
      if (this.#credentials <= credentialsMax) break;
      this.#drop(oldest);
    }
  }

  forget(query: LeaseQuery): void {
    this.#drop(nameOf(query));
  }

  #drop(name: string): void {
    this.#credentials -= this.#known.get(name)?.leased.length ?? 0;
    this.#known.delete(name);
  }
}

const nameOf = ({ subject, onBehalfOf, keyId, references }: LeaseQuery): string =>
  JSON.stringify([
    subject,
    onBehalfOf ?? null,
    keyId ?? null,
    references.map((each) => ('id' in each ? each.id : [each.team, each.name])),
  ]);

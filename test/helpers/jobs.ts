// What runs beside the requests of a test vault, one run at a time and when the test says so.
import { type Alarm, AuditLog } from '../../src/audit/record.ts';
import { canShowCredential } from '../../src/credentials/schemas.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import type { Egress } from '../../src/egress/index.ts';
import { recomputeRowMacs } from '../../src/integrity/recompute-row-macs.ts';
import { KeyLifeService } from '../../src/keys/life.ts';
import {
  endIfDone,
  listRunningRotations,
  reencryptBatch,
  type Position,
  type RunningRotation,
} from '../../src/keys/rotation.ts';
import { KeyScheduler } from '../../src/keys/scheduler.ts';
import { SystemKeyKeeper } from '../../src/keys/system-key-keeper.ts';
import { claimWebhooks } from '../../src/notifications/claims.ts';
import { deliverNext } from '../../src/notifications/delivery.ts';
import { DueScanner } from '../../src/notifications/due-scanner.ts';
import { Outbox } from '../../src/notifications/outbox.ts';
import { Retention } from '../../src/retention/service.ts';
import { newId } from '../../src/shared/ids.ts';
import { takeOverTeams } from '../../src/teams/take-over.ts';
import { unbounded } from '../../src/access/issuers.ts';
import type { TestVault } from './vault.ts';

export interface Jobs {
  /** Moves what the running rotations have to move, and ends those that are done. */
  move(): Promise<void>;
  /** Starts the rotations that are due, destroys the keys that are. */
  schedule(): Promise<void>;
  /** Looks after system keys, takes over and computes row MACs anew. */
  keep(): Promise<void>;
  /** Writes the notices of what is due. */
  look(): Promise<void>;
  /** Sends what waits, to every webhook once. */
  deliver(): Promise<void>;
  retain(): Promise<void>;
  reseal(): Promise<void>;
  /** Every alarm that a job raised. */
  readonly alarms: Alarm[];
  stop(): Promise<void>;
}

/** The jobs of a vault, which dial through the egress. */
export function jobsOf(vault: TestVault, egress: Egress): Jobs {
  const { db, keyring, databaseClock: clock } = vault;
  const now = (): number => Date.now() + vault.clock.ms;
  const alarms: Alarm[] = [];
  const onError = (error: Error): void => {
    throw error;
  };
  const onAlarm = (alarm: Alarm): void => {
    alarms.push(alarm);
  };
  const outbox = new Outbox({ keyring, now, onError });
  const audit = new AuditLog({ db, keyring, now, onError, onAlarm, onRecorded: outbox.tell });
  const wake = (): void => undefined;
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
  });
  const dueScanner = new DueScanner({ db, outbox, keyring, now, onError, onAlarm });
  const retention = new Retention({ db, audit, clock, onError });
  const credentials = new CredentialsService({
    subjectBounds: unbounded,
    db,
    keyring,
    audit,
    now,
    canShow: canShowCredential,
  });
  const delivery = {
    db,
    keyring,
    audit,
    now,
    isClockAgreed: () => clock.isAgreed,
    egress,
    credentials,
    onUse: () => undefined,
    onAlarm: ({ table, id }: { table: string; id: string }) => {
      onAlarm({
        action: 'notify',
        target: { type: table, id },
        team: undefined,
        reason: 'sealBroken',
        requestId: 'deliver',
      } as unknown as Alarm);
    },
  };
  const moveAll = async (rotation: RunningRotation): Promise<void> => {
    const rotationParts = { db, keyring, audit, now };
    for (let after: Position | undefined; ; ) {
      const { last } = await reencryptBatch(rotationParts, rotation, {
        limit: 100,
        passOver: [],
        after,
      });
      if (last === undefined) break;
      after = last;
    }
    await endIfDone(rotationParts, rotation);
  };
  return {
    move: async () => {
      for (const rotation of await listRunningRotations(db)) await moveAll(rotation);
    },
    schedule: async () => {
      await scheduler.run();
    },
    keep: () => keeper.run(),
    look: async () => {
      await dueScanner.run();
    },
    deliver: async () => {
      const at = now();
      const claimed = await claimWebhooks(db, {
        claim: newId(),
        limit: 16,
        busyTeams: [],
        at: new Date(at),
        until: new Date(at + 60_000),
      });
      for (const webhook of claimed) await deliverNext(delivery, webhook);
    },
    retain: () => retention.run(),
    reseal: async () => {
      await recomputeRowMacs(db, keyring, () => false);
    },
    alarms,
    stop: async () => {
      await dueScanner.stop();
      await audit.stop();
    },
  };
}

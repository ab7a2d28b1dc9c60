// `export`: a team's secrets, sealed to somebody's public key, with the root key in hand. It is in
// the audit log, with its reason, before anything is written; so is each credential before its
// line. Exit status 0 when everything is in it, 3 when something did not open, 130 when it was
// stopped.
import { type Keyring, parseRootKeys, Secret } from '../../crypto/index.ts';
import { type Db, openDatabase } from '../../db/client.ts';
import { DatabaseClock } from '../../db/clock.ts';
import { schemaState } from '../../db/migrate.ts';
import { SchemaUnfit } from '../../serve.ts';
import { newId } from '../../shared/ids.ts';
import { openOutput, type Output } from '../output.ts';
import {
  offlineSecrets,
  type OperateContext,
  OptionsUnfit,
  readOptions,
  stoppedExitCode,
} from '../target.ts';
import { type Content, lineSealer, type UnopenedCredential } from './container.ts';
import { openCredentials, type OpenedCredential } from './content.ts';
import { readRecipient, type ExportRecipient } from './recipient.ts';
import type { TeamRef } from '../../access/index.ts';
import { AuditLog, credentialTarget } from '../../audit/index.ts';
import { loadKeyring } from '../../keys/index.ts';
import { slugForm } from '../../shared/patterns.ts';

const statementTimeoutMs = 120_000;
const reasonForm = /^[^\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]{1,200}$/u;

interface Order {
  readonly team: string;
  readonly recipient: ExportRecipient;
  readonly reason: string;
  readonly out: string | undefined;
}

/**
 * Runs the command; its exit status. Throws OptionsUnfit, ConfigInvalid, SchemaUnfit,
 * KeyringRefused.
 */
export async function exportSecrets(context: OperateContext): Promise<number> {
  const order = orderOf(context);
  const { databaseUrl, rootKeys } = offlineSecrets(context);
  const database = openDatabase({
    url: databaseUrl,
    poolMax: 3,
    statementTimeoutMs,
    onError: () => undefined,
  });
  try {
    const state = await schemaState(database.db);
    if (state !== 'current') throw new SchemaUnfit(state);
    const clock = new DatabaseClock({ db: database.db, wallMs: context.now });
    await clock.measure();
    const { now } = clock;
    const keyring = await loadKeyring({ db: database.db, roots: parseRootKeys(rootKeys), now });
    return await write({ ...context, now }, order, database.db, keyring);
  } finally {
    await database.close();
  }
}

function orderOf({ args, readFile, isTerminal }: OperateContext): Order {
  const { team, to, reason, out } = readOptions(args, {
    team: { type: 'string' },
    to: { type: 'string' },
    reason: { type: 'string' },
    out: { type: 'string' },
  });
  if (team === undefined || !slugForm.test(team))
    throw new OptionsUnfit('--team takes the slug of a team');
  if (to === undefined)
    throw new OptionsUnfit(
      '--to must name a file with the public key that it is sealed to (npm run -s vault -- ' +
        'generate-key --recipient FILE makes a pair)',
    );
  if (reason === undefined || !reasonForm.test(reason))
    throw new OptionsUnfit('--reason takes up to 200 characters: it stands in the audit log');
  if (out === undefined && isTerminal)
    throw new OptionsUnfit('--out FILE, or a pipe: this is nothing for a terminal');
  let text: string;
  try {
    text = readFile(to);
  } catch (error) {
    throw new OptionsUnfit(
      `--to names a file that cannot be read (` +
        `${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
    );
  }
  return { team, recipient: readRecipient(text), reason, out };
}

async function write(
  context: OperateContext,
  order: Order,
  db: Db,
  keyring: Keyring,
): Promise<number> {
  const team = await db
    .selectFrom('team')
    .select(['id', 'slug'])
    .where('slug', '=', order.team)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  if (team === undefined) throw new OptionsUnfit('--team names no team of this database');
  const output = order.out === undefined ? undefined : openOutput(order.out);
  try {
    const unopened = await writeLines(context, order, {
      db,
      keyring,
      team,
      print: (text) => {
        if (output === undefined) context.write(text);
        else output.write(text);
      },
    });
    if (unopened === undefined) {
      output?.discard();
      return stoppedExitCode;
    }
    output?.keep();
    report(context, output, unopened);
    return unopened.failed.length === 0 ? 0 : 3;
  } catch (error) {
    output?.discard();
    throw error;
  }
}

interface Parts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly team: TeamRef;
  readonly print: (text: string) => void;
}
interface Written {
  readonly credentials: number;
  readonly failed: readonly UnopenedCredential[];
}

/** Undefined when it was stopped. */
async function writeLines(
  { now, stop }: OperateContext,
  { recipient, reason }: Order,
  { db, keyring, team, print }: Parts,
): Promise<Written | undefined> {
  const id = newId();
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: () => undefined,
    onAlarm: () => undefined,
  });
  const caller = { subject: null, requestId: id, address: null };
  // SECURITY: before anything is opened, and by a commit of its own: an audit log that cannot be
  // written to ends it here.
  await audit.record(db, {
    caller,
    team,
    action: 'team.exportSecrets',
    target: { type: 'team', id: team.id },
    details: { reason, recipient: recipient.kid },
  });
  const seal = await lineSealer(recipient, id);
  const line = async (content: Content): Promise<void> => {
    print(await seal(new Secret(content)));
  };
  const failed: UnopenedCredential[] = [];
  let credentials = 0;
  await line({
    kind: 'head',
    format: 1,
    team: team.slug,
    at: new Date(now()).toISOString(),
    reason,
  });
  const trx = await db
    .startTransaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute();
  try {
    for await (const batch of openCredentials(trx, keyring, team.id)) {
      if (stop.aborted) return undefined;
      const opened = batch.filter((each): each is OpenedCredential => 'content' in each);
      failed.push(...batch.filter((each): each is UnopenedCredential => !('content' in each)));
      await audit.record(
        db,
        ...opened.map((each) => ({
          caller,
          team,
          action: 'credential.export',
          target: credentialTarget(each.id),
          key: each.key,
          credentialVersion: each.version,
          details: { recipient: recipient.kid },
        })),
      );
      for (const { content } of opened) print(await seal(content));
      credentials += opened.length;
    }
  } finally {
    await trx.rollback().execute();
  }
  await line({ kind: 'end', credentials, unopened: failed });
  return { credentials, failed };
}

function report(
  { write, note }: OperateContext,
  output: Output | undefined,
  { credentials, failed }: Written,
): void {
  // What goes beside the lines must not stand among them.
  const say = output === undefined ? (note ?? (() => undefined)) : write;
  for (const { id, name, reason } of failed) say(`${reason}  ${id}  ${name}\n`);
  say(
    `${credentials} ${credentials === 1 ? 'credential' : 'credentials'}` +
      `${failed.length === 0 ? '' : `, ${failed.length} left out`}` +
      `${output === undefined ? '' : `: ${output.path}`}\n`,
  );
}

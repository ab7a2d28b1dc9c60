// The one target of a test: the credential's own destination, for its own team.
import type { Socket } from 'node:net';
import type { Egress } from '../egress/index.ts';
import { Lines } from './lines.ts';
import type { Wire } from './report.ts';

/**
 * Public and secret fields of one version together. SECURITY: plaintext, for one conversation with
 * the credential's own destination.
 */
export type TestedFields = Readonly<Record<string, string | number | boolean>>;

export interface ConnectionTarget {
  readonly egress: Egress;
  /** The slug of the credential's team. */
  readonly team: string;
  readonly fields: TestedFields;
  readonly wire: Wire;
  readonly timeoutMs: number;
  readonly now: () => number;
}

/** A target that may be dialled. */
export interface Reached {
  readonly host: string;
  readonly port: number;
  /** The operator has named this target: only then may a secret go without TLS. */
  readonly isAllowedPlain: boolean;
}

/** The destination in `host` and `port`. Throws EgressFailed `name`. */
export function reach({ egress, team, fields }: ConnectionTarget): Promise<Reached> {
  return egress.check(
    { protocol: 'https:', host: String(fields['host'] ?? ''), port: Number(fields['port'] ?? 0) },
    team,
  );
}

/** A connection to it. Throws EgressFailed. */
export async function connectTo(
  { egress, team, wire, timeoutMs }: ConnectionTarget,
  { host, port }: Reached,
  { isTls }: { isTls: boolean },
): Promise<Socket> {
  wire.isTls = isTls;
  return egress.connect(host, port, { team, tls: isTls, timeoutMs });
}

/** The same as a conversation in lines. */
export async function openLines(
  target: ConnectionTarget,
  reached: Reached,
  options: { isTls: boolean },
): Promise<Lines> {
  return new Lines(await connectTo(target, reached, options), target);
}

/** Turns it to TLS. Throws EgressFailed. */
export async function turnToTls(
  { egress, wire, timeoutMs }: ConnectionTarget,
  { host }: Reached,
  lines: Lines,
): Promise<void> {
  wire.isTls = true;
  await lines.turn((socket) => egress.secure(socket, host, { timeoutMs }));
}

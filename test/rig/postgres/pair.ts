// A primary and its synchronous standby: what is acknowledged is on both. Failover as an operator
// does it: the primary is dead before the standby is promoted, and a fresh standby takes its place.
import { until } from '../../helpers/processes.ts';
import { Line } from './proxy.ts';
import { PostgresNode } from './node.ts';

/** Two servers, one of them the primary. */
export class PostgresPair {
  readonly nodes: readonly [PostgresNode, PostgresNode];
  /** The lines over which each server's standby follows it. */
  readonly replication: readonly [Line, Line];
  #primary: 0 | 1 = 0;

  private constructor(nodes: [PostgresNode, PostgresNode], replication: [Line, Line]) {
    this.nodes = nodes;
    this.replication = replication;
  }

  /** One primary, not yet followed by anybody. */
  static async start(folder: string, bin: string): Promise<PostgresPair> {
    const nodes = [0, 1].map(
      (at) => new PostgresNode({ name: `pg${at}`, folder: `${folder}/pg${at}`, bin }),
    ) as [PostgresNode, PostgresNode];
    const lines = (await Promise.all(
      nodes.map((node) => new Line(`standby of ${node.name}`, () => node.socket).listen()),
    )) as [Line, Line];
    await nodes[0].init();
    await nodes[0].start();
    return new PostgresPair(nodes, lines);
  }

  get primary(): PostgresNode {
    return this.nodes[this.#primary];
  }

  get standby(): PostgresNode {
    return this.nodes[this.#primary === 0 ? 1 : 0];
  }

  /** The line over which the standby of now follows. */
  get replicationLine(): Line {
    return this.replication[this.#primary];
  }

  /** Makes the other server the synchronous standby; commits wait for it from now on. */
  async addStandby(): Promise<void> {
    if (this.standby.isAlive) await this.standby.kill();
    this.replicationLine.setMode('open');
    // Before the copy, which takes it along: a standby that is promoted acknowledges nothing alone.
    await this.primary.query(`alter system set synchronous_standby_names = '*'`);
    await this.primary.query('select pg_reload_conf()');
    await this.standby.copyFrom(this.primary, this.replicationLine.port);
    await this.standby.start();
    await this.untilSynchronous();
  }

  /** Returns when the standby has all that was acknowledged and commits wait for it. */
  async untilSynchronous(): Promise<void> {
    await until(async () => {
      const rows = await this.primary.query(
        `select 1 from pg_stat_replication where sync_state = 'sync' and state = 'streaming'`,
      );
      return rows.length > 0;
    }, 60_000);
  }

  /** Kills the primary where it still lives and promotes the standby; there is no standby then. */
  async failOver(): Promise<void> {
    await this.primary.kill();
    await this.standby.promote();
    this.#primary = this.#primary === 0 ? 1 : 0;
  }

  /**
   * Commits that wait for the standby wait no more, as if their time limit had come: they are there
   * on the primary, and their callers are told that it is not known.
   */
  async cancelWaits(): Promise<number> {
    const rows = await this.primary.query(
      `select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`,
    );
    return rows.length;
  }

  async stop(): Promise<void> {
    for (const node of this.nodes) await node.kill();
    for (const line of this.replication) await line.close();
  }
}

// How an act sees the run.
import type { Random } from '../random.ts';
import type { Setting, Station } from '../setting.ts';

/** How an act sees the run. */
export interface Scene {
  readonly setting: Setting;
  readonly random: Random;
  readonly tell: (detail: Readonly<Record<string, unknown>>) => void;
  /** Waits, and returns early when the run is over. */
  wait(ms: number): Promise<void>;
  /** The replica that the replicas' deck is at now, so that the others go on. */
  readonly station: Station;
}
export type Act = (scene: Scene) => Promise<void>;

/** So many milliseconds, from and to so many seconds. */
export const seconds = (random: Random, from: number, to: number): number =>
  random.integer(from * 1_000, to * 1_000);

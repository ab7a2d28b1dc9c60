// Rows of engines, as they are read.
import type { EngineId, SubjectId } from '../shared/ids.ts';
import type { PublicJwk } from './jwk.ts';

export interface EngineRow {
  readonly id: EngineId;
  readonly subject: SubjectId;
  readonly sub: string;
  readonly name: string;
  readonly state: EngineState;
  readonly revision: number;
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
  readonly keys: readonly EngineKeyRow[];
}

export type EngineState = 'enabled' | 'disabled';

export interface EngineKeyRow {
  readonly engine: EngineId;
  readonly kid: string;
  readonly jwk: PublicJwk;
  readonly revision: number;
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
}

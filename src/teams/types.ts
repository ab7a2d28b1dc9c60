// Rows of teams and members, as they are read.
import type { SubjectId } from '../shared/ids.ts';
import type { Role } from '../db/tables.ts';

export interface MemberRow {
  readonly subject: SubjectId;
  readonly sub: string;
  readonly role: Role;
  readonly actsForItself: boolean;
  readonly revision: number;
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

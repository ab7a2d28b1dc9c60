// How a declared type is called: by its name where people see it, and with the digest of what binds
// its credentials where it is stored. Pure.
import { findType } from '../types/registry.ts';

/** Longest name, in characters. */
export const declaredNameLengthMax = 60;
/** Words with dots between: no type of the vault's own has a dot in its name. */
export const declaredNameForm =
  /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?:\.[a-z][a-z0-9]*(?:-[a-z0-9]+)*)+$/;

/** Whether a declared type may have this name. */
export const isDeclaredName = (name: string): boolean =>
  name.length <= declaredNameLengthMax && declaredNameForm.test(name);

/**
 * Whether a credential of this type may be asked for: one of the vault's own, or a declared one.
 */
export const isTypeName = (name: string): boolean =>
  findType(name) !== undefined || isDeclaredName(name);

/** Whether a credential's row names a declared type. */
export const isDeclared = (stored: string): boolean => stored.includes('#');

/** The name that people see of what a credential's row says. */
export const shownType = (stored: string): string => stored.split('#', 1)[0]!;

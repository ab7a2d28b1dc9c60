// The failures of cryptography. None carries a value, a cause or a reason: what an attacker could
// learn from them is "no".
import { ShownError } from '../shared/shown-error.ts';

/**
 * What was given does not open: wrong key, wrong binding, changed or malformed. Which of these is
 * never said.
 */
export class DecryptionFailed extends Error {
  constructor() {
    super('decryption failed');
    this.name = 'DecryptionFailed';
  }
}

/**
 * A key is out of reach: its root key is not configured, or does not unwrap it. It says nothing
 * about the tokens under the key.
 */
export class KeyUnavailable extends Error {
  readonly fingerprint: string;

  constructor(fingerprint: string) {
    super(`root key ${fingerprint} is not configured or does not unwrap the key`);
    this.name = 'KeyUnavailable';
    this.fingerprint = fingerprint;
  }
}

/**
 * The system keys say that rows of before are not taken over yet, which this process knows to be
 * over.
 */
export class EpochReturned extends Error {
  constructor() {
    super('the system keys are those from before the take-over: their rows were put back');
    this.name = 'EpochReturned';
  }
}

/** There are no system keys where there were some: what they protect would count as nobody's. */
export class SystemKeysMissing extends ShownError {
  constructor() {
    super('there are no system keys any more: their rows were deleted');
    this.name = 'SystemKeysMissing';
  }
}

/** The list of root keys is not usable. The message names the position, never the value. */
export class RootKeyInvalid extends ShownError {
  constructor(message: string) {
    super(message);
    this.name = 'RootKeyInvalid';
  }
}

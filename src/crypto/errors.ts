// The failures of cryptography. None carries a value, a cause or a reason: what an attacker could learn from them is "no".

/** What was given does not open: wrong key, wrong place, changed or malformed. Which of these is never said. */
export class DecryptionFailed extends Error {
  constructor() {
    super('decryption failed');
    this.name = 'DecryptionFailed';
  }
}

/** The root key that wrapped this key is not configured. It says nothing about the wrapped key: another configuration may open it. */
export class KeyUnavailable extends Error {
  readonly fingerprint: string;

  constructor(fingerprint: string) {
    super(`root key ${fingerprint} is not configured`);
    this.name = 'KeyUnavailable';
    this.fingerprint = fingerprint;
  }
}

/** The list of root keys is not usable. The message names the position, never the value. */
export class RootKeyInvalid extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'RootKeyInvalid';
  }
}

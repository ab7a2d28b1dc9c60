// What the vault calls itself where it asks others.

/** For the head `User-Agent`: product and version. */
export const userAgent = 'credential-vault/0.2.0';

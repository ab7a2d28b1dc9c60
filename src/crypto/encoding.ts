// Padded urlsafe base64, read strictly: bytes have exactly one text, and only that text is read.

/** The bytes as urlsafe base64 with padding. */
export function toBase64(bytes: Buffer): string {
  const text = bytes.toString('base64url');
  return text + '='.repeat(-text.length & 3);
}

/** The bytes of a text that toBase64 could have made; undefined for every other text. */
export function fromBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url');
  // SECURITY: Node decodes leniently (other alphabets, blanks, spare bits); a text that does not
  // re-encode to itself is not read.
  return toBase64(bytes) === text ? bytes : undefined;
}

// The forms in which a secret is looked for. What a reading of the stream undoes on the way
// (escapes.ts, wide.ts, broken lines) needs no form of its own here.

export const valueBytesMin = 8;

/**
 * Every byte pattern that stands for one of the values. A value of fewer than 8 bytes is not looked
 * for: it is everywhere.
 */
export function formsOf(sensitive: readonly string[]): Uint8Array[] {
  const forms = new Map<string, Uint8Array>();
  for (const value of sensitive) {
    const bytes = Buffer.from(value);
    if (bytes.length < valueBytesMin) continue;
    const texts = [...textsOf(value), ...encodingsOf(bytes)].map((text) => Buffer.from(text));
    for (const form of [...texts, ...latin1FormsOf(value, bytes)])
      forms.set(form.toString('latin1'), form);
  }
  return [...forms.values()];
}

/**
 * The value itself, in other case, and as it stands in a form, in HTML, and escaped once (found
 * there when it was escaped twice).
 */
function textsOf(value: string): string[] {
  const html: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return [
    value,
    value.toLowerCase(),
    value.toUpperCase(),
    value.replaceAll(' ', '+'),
    value.replace(/[&<>"']/g, (character) => html[character]!),
    value.replace(/[&<>"']/g, (character) => (character === "'" ? '&#x27;' : html[character]!)),
    JSON.stringify(value).slice(1, -1),
    encodeURIComponent(value),
  ];
}

function encodingsOf(bytes: Buffer): string[] {
  const hex = bytes.toString('hex');
  return [
    hex,
    hex.toUpperCase(),
    ...base64Forms(bytes).flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')]),
  ];
}

/**
 * In base64 of a longer text a value stands in one of three ways; the characters that it shares
 * with its neighbours are left out.
 */
function base64Forms(bytes: Buffer): string[] {
  const whole = bytes.toString('base64');
  const inside = [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const isPartial = (offset + bytes.length) % 3 !== 0;
    return text.slice([0, 2, 3][offset], isPartial ? -1 : undefined);
  });
  return [whole, ...inside];
}

/** The values in UTF-16 and UTF-32, in both orders. */
export function wideFormsOf(sensitive: readonly string[]): Uint8Array[] {
  return sensitive
    .filter((value) => Buffer.byteLength(value) >= valueBytesMin)
    .flatMap((value) => {
      const utf16 = Buffer.from(value, 'utf16le');
      const points = [...value].map((character) => character.codePointAt(0)!);
      const [little, big] = [Buffer.alloc(4 * points.length), Buffer.alloc(4 * points.length)];
      points.forEach((point, i) => {
        little.writeUInt32LE(point, 4 * i);
        big.writeUInt32BE(point, 4 * i);
      });
      return [utf16, Buffer.from(utf16).swap16(), little, big];
    });
}

/**
 * Of a value beyond ASCII: its bytes in ISO-8859-1, and its UTF-8 taken for that (`\xc3\xa9` for
 * `é`, where an escape means a byte).
 */
function latin1FormsOf(value: string, bytes: Buffer): Buffer[] {
  if (bytes.length === value.length) return [];
  const taken = Buffer.from(bytes.toString('latin1'));
  const isLatin1 = [...value].every((character) => character.codePointAt(0)! <= 0xff);
  const latin1 = Buffer.from(value, 'latin1');
  return isLatin1 && latin1.length >= valueBytesMin ? [taken, latin1] : [taken];
}

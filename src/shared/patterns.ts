// Forms of text that are asked for in several places. None has the flags `g` or `y`: a pattern here
// remembers nothing between two texts.

/** A team's slug. */
export const slugForm = /^[a-z0-9][a-z0-9-]{1,38}$/;
/** An id as the vault makes them: UUID version 7, in lower case. */
export const idForm = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
/** A word such as a kind or a part of an action. */
export const lettersForm = /^[a-zA-Z]+$/;
/** The name of a type, of a field or of a target. */
export const lettersAndDigitsForm = /^[A-Za-z0-9]+$/;
/** 32 bytes as base64url without padding, such as a thumbprint (RFC 7638). */
export const base64urlOf32Form = /^[A-Za-z0-9_-]{43}$/;
/** A port behind a host name, or none. */
export const portForm =
  '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?';
/** A host as a policy names it, in lower case; `*.` in front stands for one label. */
export const allowedHostForm = new RegExp(
  `^(?:\\*\\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?${portForm}$`,
);
/** A text without control characters, and without what turns the direction of what follows. */
export const storableForm = /^[^\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]*$/u;
/** One line of text without control characters. */
export const lineForm = /^[^\p{Cc}\p{Cs}]+$/u;
/** Visible ASCII, with blanks inside. */
export const visibleAsciiForm = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;
/** A JWT in its compact form. */
export const jwtForm = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
/** What a reader of paths may take for the folder itself or the one above it. */
export const dotSegmentForm = /^\s*\.{1,2}\s*$/;
/** The characters and the length of an id, whoever made it. */
export const idLikeForm = /^[0-9a-f-]{36}$/;
/** The name of a region of AWS. */
export const awsRegionForm = /^[a-z]{2,5}(?:-[a-z]+)+-\d{1,2}$/;
/** A token of HTTP (RFC 9110, 5.6.2): the name of a header, of a method, of a subprotocol. */
export const httpTokenForm = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

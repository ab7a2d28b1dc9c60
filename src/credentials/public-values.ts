// What is public of a credential, as it is stored.

/** A public value: what a form shows and an answer returns. */
export type PublicValue = string | number | boolean;
export type PublicFields = Readonly<Record<string, PublicValue>>;

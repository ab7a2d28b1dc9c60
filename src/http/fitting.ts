// What the serializer need not look at again.

/** An answer that fits its schema. */
export class Fitting {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

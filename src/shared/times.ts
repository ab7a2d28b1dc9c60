// Times that RFC 3339 can say. A database can hold others.

const first = Date.parse('0001-01-01T00:00:00.000Z');
const last = Date.parse('9999-12-31T23:59:59.999Z');

/** Whether it is a Date with a time whose year has four digits. */
export const isTime = (value: unknown): value is Date =>
  value instanceof Date && value.getTime() >= first && value.getTime() <= last;

// The end of a switch over a closed set.

/**
 * What is thrown behind a switch that knows every member: `throw unknownMember(kind satisfies
 * never)` does not compile once the set has another. It says nothing of the value.
 */
export const unknownMember = (_: never): TypeError =>
  new TypeError('a member of a closed set that nobody knows');

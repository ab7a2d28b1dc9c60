// What a list is asked for.

/**
 * What a list needs to know: how many, and after which key (the sort columns of the last item of
 * the page before).
 */
export interface Page {
  readonly limit: number;
  readonly after: readonly string[] | undefined;
}

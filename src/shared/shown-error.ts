// The one kind of error of which a command prints the message.

/**
 * An error whose message the vault wrote itself, for whoever started the command. SECURITY: it
 * quotes no value of a setting, a row, a file or a request; of any other error a command prints the
 * name and the place, never the message.
 */
export class ShownError extends Error {
  override name = 'ShownError';
}

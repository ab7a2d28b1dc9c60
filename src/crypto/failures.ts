// What a failure of cryptography means to the caller of an operation.
import { AppError } from '../shared/errors.ts';
import { DecryptionFailed, KeyUnavailable } from './errors.ts';

/** The domain error behind a failure of a key or a token; undefined for everything else. */
export function failureOfKeys(thrown: unknown): AppError | undefined {
  if (thrown instanceof KeyUnavailable) {
    return new AppError('keyUnavailable', 'A root key that is needed is not configured.', {
      cause: thrown,
    });
  }
  if (thrown instanceof DecryptionFailed)
    return new AppError('undecryptable', 'The stored value does not open.', { cause: thrown });
  return undefined;
}

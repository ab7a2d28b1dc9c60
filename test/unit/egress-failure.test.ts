// What a dispatcher throws is the other side's failure only where it is known to be.
import t from 'tap';
import { EgressFailed, egressFailure } from '../../src/egress/failure.ts';

const coded = (code: string, name = 'Error'): Error =>
  Object.assign(new Error('said by somebody'), { code, name });

t.test('what the other side did, or the way there', async (t) => {
  for (const [thrown, step] of [
    [coded('UND_ERR_SOCKET'), 'response'],
    [coded('UND_ERR_RES_CONTENT_LENGTH_MISMATCH'), 'response'],
    [coded('UND_ERR_HEADERS_OVERFLOW'), 'response'],
    [coded('UND_ERR_ABORTED', 'AbortError'), 'response'],
    [coded('HPE_INVALID_CONSTANT', 'HTTPParserError'), 'response'],
    [Object.assign(new Error('x'), { name: 'HTTPParserError' }), 'response'],
    [coded('ECONNRESET'), 'response'],
    [Object.assign(new Error('x'), { syscall: 'read' }), 'response'],
    [coded('ERR_SSL_WRONG_VERSION_NUMBER'), 'response'],
    [coded('UND_ERR_HEADERS_TIMEOUT'), 'timeout'],
    [coded('UND_ERR_BODY_TIMEOUT'), 'timeout'],
    [Object.assign(new Error('x'), { name: 'TimeoutError' }), 'timeout'],
  ] as const) {
    const failure = egressFailure(thrown);
    t.type(failure, EgressFailed, thrown.name);
    t.match(failure, { step, cause: thrown });
  }
  const known = new EgressFailed('tls');
  t.equal(egressFailure(known), known);
});

t.test('what is our own comes back as it was thrown', async (t) => {
  for (const thrown of [
    new TypeError('a fault of ours'),
    new Error('nobody knows'),
    coded('UND_ERR_INVALID_ARG'),
    coded('UND_ERR_REQ_CONTENT_LENGTH_MISMATCH'),
    coded('ERR_ASSERTION', 'AssertionError'),
    coded('ERR_INVALID_CHAR', 'TypeError'),
    coded('42P01'),
    'a text',
    undefined,
  ])
    t.equal(egressFailure(thrown), thrown);
});
